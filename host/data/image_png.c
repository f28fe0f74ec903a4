/* image_png.c - PNG through libpng's row interface.
 *
 * Everything that libpng's error handler may jump over lives in a Reader or Writer that the
 * outer function owns, so a jump leaks nothing. Every checksum is checked, complaints about
 * image data are errors, profiles and other chunks that do not change samples are skipped.
 * (The simplified interface is avoided: it has had overflows on 16-bit interlaced files.)
 */
#include "data/image_codec.h"
#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_CHUNK_BYTES = 1 << 20, MAX_CHUNKS = 256, DEFLATE_RATIO = 1032 };

typedef struct {
    jmp_buf jump;
    Encoded in;
    size_t at;           /* next byte of the file                    */
    int row;             /* next row, -1 in the header, h behind     */
    Image im;            /* owned until handed over                  */
    unsigned char *rows; /* owned: one row, or all of an interlaced image */
    Colour colour;
    bool interlaced;
    int orientation;
    Status status;
    png_structp png;
    png_infop info;
} Reader;

static noreturn void reader_fail(Reader *r, Status code, const char *what)
{
    char place[64];
    if (r->row < 0) snprintf(place, sizeof place, "header");
    else if (r->row < r->im.h) snprintf(place, sizeof place, "row %d of %d", r->row, r->im.h);
    else snprintf(place, sizeof place, "behind the image data");
    r->status = FAIL(code, "%s: byte %zu (%s): %s", r->in.path, r->at, place, what);
    longjmp(r->jump, 1);
}

static void on_error(png_structp png, png_const_charp what)
{
    Reader *r = png_get_error_ptr(png);
    bool memory = !strcmp(what, "Out of memory") || !strcmp(what, "out of memory");
    reader_fail(r, memory ? ERR_SPACE : ERR_INPUT, what);
}

static void on_warning(png_structp png, png_const_charp what)
{
    if (!strncmp(what, "IDAT", 4)) on_error(png, what);
}

static void read_bytes(png_structp png, png_bytep out, size_t n)
{
    Reader *r = png_get_io_ptr(png);
    if (n > r->in.size - r->at) {
        r->at = r->in.size;
        reader_fail(r, ERR_INPUT, "truncated, expected the rest of the PNG image");
    }
    memcpy(out, r->in.data + r->at, n);
    r->at += n;
}

static void skip_chunks(png_structp png)
{
    static const png_byte skipped[] = "iCCP\0sPLT\0hIST\0pCAL\0sCAL\0cHRM\0gAMA\0sRGB\0bKGD";
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, skipped, (int)sizeof skipped / 5);
}

static void read_header(Reader *r)
{
    png_structp png = r->png;
    png_set_read_fn(png, r, read_bytes);
    png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(png, IMAGE_MAX_SIDE, IMAGE_MAX_SIDE);
    png_set_chunk_malloc_max(png, MAX_CHUNK_BYTES);
    png_set_chunk_cache_max(png, MAX_CHUNKS);
    skip_chunks(png);
    png_read_info(png, r->info);
    int depth = png_get_bit_depth(png, r->info), type = png_get_color_type(png, r->info);
    r->im.bits = depth;
    r->im.channels = type & PNG_COLOR_MASK_COLOR ? 3 : 1;
    if (depth == 16 && r->im.channels == 3)
        reader_fail(r, ERR_INPUT, "is 16-bit colour, expected grey, or colour of 8 bits");
    png_set_expand(png); /* palette to RGB, 1-4 bits to 8, tRNS to alpha */
    r->interlaced = png_set_interlace_handling(png) > 1;
    png_read_update_info(png, r->info);
}

static void find_orientation(Reader *r)
{
    png_bytep exif;
    png_uint_32 n;
    r->orientation = 1;
    if (png_get_eXIf_1(r->png, r->info, &n, &exif)) r->orientation = exif_orientation(exif, n);
}

static void read_rows(Reader *r)
{
    png_structp png = r->png;
    int h = (int)png_get_image_height(png, r->info), w = (int)png_get_image_width(png, r->info);
    int samples = png_get_channels(png, r->info), bits = png_get_bit_depth(png, r->info);
    size_t row_bytes = png_get_rowbytes(png, r->info), stored = (size_t)w * r->im.bits / 8;
    r->im.planes = r->in.planes;
    r->status = image_alloc(&r->im, h, w, r->in.path);
    if (r->status) longjmp(r->jump, 1);
    if (stored * (size_t)h / DEFLATE_RATIO > r->in.size)
        reader_fail(r, ERR_INPUT, "truncated, expected more bytes for an image of its size");
    r->rows = malloc(row_bytes * (r->interlaced ? (size_t)h : 1));
    if (!r->rows) reader_fail(r, ERR_SPACE, "out of memory");
    if (r->interlaced)
        for (int pass = 0; pass < 7; pass++)
            for (r->row = 0; r->row < h; r->row++)
                png_read_row(png, r->rows + (size_t)r->row * row_bytes, NULL);
    for (r->row = 0; r->row < h; r->row++) {
        unsigned char *row = r->rows + (r->interlaced ? (size_t)r->row * row_bytes : 0);
        if (!r->interlaced) png_read_row(png, row, NULL);
        colour_row(r->im.pixel + (size_t)r->row * w * r->im.planes, r->im.planes, &r->colour, row,
                   w, samples, bits);
    }
}

static void read_texts(Reader *r)
{
    png_textp text;
    int n;
    png_read_end(r->png, r->info);
    png_get_text(r->png, r->info, &text, &n);
    for (int i = 0; i < n; i++)
        image_add_text(&r->im, text[i].key, text[i].text ? text[i].text : "");
    find_orientation(r);
}

/* False after a jump; r->status says why. */
static bool read_all(Reader *r)
{
    if (setjmp(r->jump)) return false;
    read_header(r);
    read_rows(r);
    read_texts(r);
    return true;
}

Status png_decode(Image *im, Encoded in)
{
    Reader r = {.in = in, .row = -1, .orientation = 1};
    r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning);
    r.info = r.png ? png_create_info_struct(r.png) : NULL;
    if (!r.info) r.status = FAIL(ERR_SPACE, "%s: no memory to read it", in.path);
    else if (read_all(&r)) r.status = colour_check(&r.colour, &r.im, in.path);
    if (!r.status) r.status = image_orient(&r.im, r.orientation, in.path);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    free(r.rows);
    if (r.status) image_free(&r.im);
    *im = r.im;
    return r.status;
}

/* ---- writing -------------------------------------------------------------------------- */

typedef struct {
    jmp_buf jump;
    const char *path;
    unsigned char *out; /* owned until handed over */
    size_t n, cap;
    unsigned char *row; /* owned */
    png_text *text;     /* owned: [n_text]; the values too */
    int n_text;
    Status status;
    png_structp png;
    png_infop info;
} Writer;

static void on_write_error(png_structp png, png_const_charp what)
{
    Writer *w = png_get_error_ptr(png);
    w->status = FAIL(ERR_SPACE, "%s: cannot encode it: %s", w->path, what);
    longjmp(w->jump, 1);
}

static void on_write_warning(png_structp png, png_const_charp what)
{
    (void)png;
    (void)what; /* about texts that are too odd to matter; ours are sanitised */
}

static void write_bytes(png_structp png, png_bytep data, size_t n)
{
    Writer *w = png_get_io_ptr(png);
    if (w->n + n > w->cap) {
        size_t cap = 2 * (w->n + n);
        unsigned char *more = realloc(w->out, cap);
        if (!more) png_error(png, "out of memory");
        w->out = more;
        w->cap = cap;
    }
    memcpy(w->out + w->n, data, n);
    w->n += n;
}

static void flush_nothing(png_structp png) { (void)png; }

/* A copy with one "?" for each byte that is no printable UTF-8; sets *ascii. */
static char *printable(const char *s, bool *ascii)
{
    size_t n = strlen(s), at = 0, to = 0;
    char *out = malloc(n + 1);
    CHECK(out);
    *ascii = true;
    while (at < n) {
        utf8proc_int32_t c;
        utf8proc_ssize_t used =
            utf8proc_iterate((const utf8proc_uint8_t *)s + at, (utf8proc_ssize_t)(n - at), &c);
        bool good = used > 0 && (c == '\n' || utf8proc_category(c) < UTF8PROC_CATEGORY_CC) &&
                    utf8proc_category(c) != UTF8PROC_CATEGORY_CN;
        if (good) {
            memcpy(out + to, s + at, (size_t)used);
            to += (size_t)used;
            *ascii &= c < 0x80;
        } else {
            out[to++] = '?';
        }
        at += used > 0 ? (size_t)used : 1;
    }
    out[to] = 0;
    return out;
}

static void set_texts(Writer *w, const ImageText *text, int n_text)
{
    w->text = calloc((size_t)n_text + 1, sizeof *w->text);
    CHECK(w->text);
    w->n_text = n_text;
    for (int i = 0; i < n_text; i++) {
        size_t n = strlen(text[i].key);
        bool ascii;
        CHECK(n >= 1 && n <= 79);
        w->text[i].key = text[i].key;
        w->text[i].text = printable(text[i].value, &ascii);
        w->text[i].compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        w->text[i].lang = "";
        w->text[i].lang_key = "";
    }
}

static bool write_all(Writer *out, const float *pixel, int h, int w, int planes)
{
    if (setjmp(out->jump)) return false;
    png_structp png = out->png;
    png_set_write_fn(png, out, write_bytes, flush_nothing);
    png_set_compression_level(png, 6);
    png_set_IHDR(png, out->info, (png_uint_32)w, (png_uint_32)h, 8,
                 planes == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_text(png, out->info, out->text, out->n_text);
    png_write_info(png, out->info);
    for (int y = 0; y < h; y++) {
        for (int x = 0; x < w * planes; x++) {
            float p = pixel[(size_t)y * w * planes + x];
            out->row[x] = (unsigned char)lrintf(255 * (p < 0 ? 0 : p > 1 ? 1 : p));
        }
        png_write_row(png, out->row);
    }
    png_write_end(png, NULL);
    return true;
}

static void writer_free(Writer *w)
{
    png_destroy_write_struct(&w->png, &w->info);
    for (int i = 0; i < w->n_text; i++) free(w->text[i].text);
    free(w->text);
    free(w->row);
    free(w->out);
}

typedef struct {
    const float *pixel;
    int h, w, planes;
} Picture;

static Status encode(char **data, size_t *size, Picture p, const ImageText *text, int n_text,
                     const char *path)
{
    const float *pixel = p.pixel;
    int h = p.h, w = p.w, planes = p.planes;
    CHECK(h > 0 && w > 0 && h <= IMAGE_MAX_SIDE && w <= IMAGE_MAX_SIDE);
    *data = NULL;
    *size = 0;
    for (size_t i = 0; i < (size_t)h * w * planes; i++)
        if (isnan(pixel[i]))
            return FAIL(ERR_NUMERIC, "%s: row %zu, column %zu: pixel is not a number", path,
                        i / planes / w, i / planes % w);
    Writer out = {.path = path, .row = malloc((size_t)w * planes)};
    set_texts(&out, text, n_text);
    out.png =
        png_create_write_struct(PNG_LIBPNG_VER_STRING, &out, on_write_error, on_write_warning);
    out.info = out.png ? png_create_info_struct(out.png) : NULL;
    if (!out.row || !out.info) {
        out.status = FAIL(ERR_SPACE, "%s: no memory to encode it", path);
    } else if (write_all(&out, pixel, h, w, planes)) {
        *data = (char *)out.out;
        *size = out.n;
        out.out = NULL;
    }
    Status s = out.status;
    writer_free(&out);
    return s;
}

Status image_encode_png(char **data, size_t *size, const float *pixel, int h, int w,
                        const ImageText *text, int n_text, const char *path)
{
    return encode(data, size, (Picture){pixel, h, w, 1}, text, n_text, path);
}

static Status write_picture(const char *path, Picture p, const ImageText *text, int n_text)
{
    char *data;
    size_t size;
    TRY(encode(&data, &size, p, text, n_text, path));
    Status s = file_write(path, data, size);
    free(data);
    return s;
}

Status image_write_png(const char *path, const float *pixel, int h, int w, const ImageText *text,
                       int n_text)
{
    return write_picture(path, (Picture){pixel, h, w, 1}, text, n_text);
}

Status image_write_colour_png(const char *path, const float *pixel, int h, int w,
                              const ImageText *text, int n_text)
{
    return write_picture(path, (Picture){pixel, h, w, 3}, text, n_text);
}
