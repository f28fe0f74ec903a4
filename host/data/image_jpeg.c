/* image_jpeg.c - JPEG through libjpeg-turbo.
 *
 * Grey and three-component files, baseline and progressive, 8 bits. libjpeg repairs damage and
 * only warns; for films every warning is an error. What its error handler may jump over lives
 * in a Reader that the outer function owns.
 */
#include "data/image_codec.h"
#include <jpeglib.h>
#include <setjmp.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>

enum { MAX_SCANS = 200 }; /* a small file can ask for endless passes over a large image */

typedef struct {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr error;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    Encoded in;
    Image im;           /* owned until handed over */
    unsigned char *row; /* owned */
    Colour colour;
    int orientation;
    Status status;
} Reader;

static noreturn void reader_fail(Reader *r, Status code, const char *what)
{
    size_t at = r->jpeg.src ? r->in.size - r->jpeg.src->bytes_in_buffer : 0;
    if (r->im.h)
        r->status = FAIL(code, "%s: byte %zu (row %u of %d): %s", r->in.path, at,
                         r->jpeg.output_scanline, r->im.h, what);
    else r->status = FAIL(code, "%s: byte %zu (header): %s", r->in.path, at, what);
    longjmp(r->jump, 1);
}

static void on_error(j_common_ptr c)
{
    char what[JMSG_LENGTH_MAX];
    c->err->format_message(c, what);
    bool memory = !strncmp(what, "Insufficient memory", 19);
    reader_fail((Reader *)c->client_data, memory ? ERR_SPACE : ERR_INPUT, what);
}

static void on_message(j_common_ptr c, int level)
{
    if (level < 0) on_error(c);
}

/* The library's own source invents an end of image here. */
static boolean on_end_of_data(j_decompress_ptr jpeg)
{
    jpeg->src->bytes_in_buffer = 0;
    reader_fail(jpeg->client_data, ERR_INPUT, "truncated, expected the rest of the JPEG image");
}

static void skip_bytes(j_decompress_ptr jpeg, long n)
{
    if (n <= 0) return;
    if ((size_t)n > jpeg->src->bytes_in_buffer) on_end_of_data(jpeg);
    jpeg->src->next_input_byte += n;
    jpeg->src->bytes_in_buffer -= (size_t)n;
}

static void on_progress(j_common_ptr c)
{
    j_decompress_ptr jpeg = (j_decompress_ptr)c;
    if (jpeg->input_scan_number > MAX_SCANS)
        reader_fail(c->client_data, ERR_INPUT, "more than 200 scans, expected a film");
}

static void find_orientation(Reader *r)
{
    r->orientation = 1;
    for (jpeg_saved_marker_ptr m = r->jpeg.marker_list; m; m = m->next)
        if (m->data_length > 6 && !memcmp(m->data, "Exif\0", 6)) {
            r->orientation = exif_orientation(m->data + 6, m->data_length - 6);
            return;
        }
}

/* XMP packets, under the name that PNG gives them. In the file, a 0 ends the name space. */
static void find_xmp(Reader *r)
{
    static const char name[] = "http://ns.adobe.com/xap/1.0/";
    for (jpeg_saved_marker_ptr m = r->jpeg.marker_list; m; m = m->next) {
        if (m->data_length < sizeof name || memcmp(m->data, name, sizeof name)) continue;
        char *xmp = strndup((const char *)m->data + sizeof name, m->data_length - sizeof name);
        CHECK(xmp);
        image_add_text(&r->im, "XML:com.adobe.xmp", xmp);
        free(xmp);
    }
}

static void read_header(Reader *r)
{
    j_decompress_ptr jpeg = &r->jpeg;
    jpeg_mem_src(jpeg, r->in.data, (unsigned long)r->in.size);
    jpeg->src->fill_input_buffer = on_end_of_data;
    jpeg->src->skip_input_data = skip_bytes;
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(jpeg, TRUE);
    find_orientation(r);
    find_xmp(r);
    J_COLOR_SPACE space = jpeg->jpeg_color_space;
    if (space == JCS_CMYK || space == JCS_YCCK)
        reader_fail(r, ERR_INPUT, "is a CMYK image, expected grey or RGB");
    if (space != JCS_GRAYSCALE && space != JCS_YCbCr && space != JCS_RGB)
        reader_fail(r, ERR_INPUT, "has an unknown colour space, expected grey or RGB");
    jpeg->out_color_space = space == JCS_GRAYSCALE ? JCS_GRAYSCALE : JCS_RGB;
    r->im.bits = 8;
    r->im.channels = jpeg->num_components;
    r->im.planes = r->in.planes;
    r->status = image_alloc(&r->im, jpeg->image_height, jpeg->image_width, r->in.path);
    if (r->status) longjmp(r->jump, 1);
}

/* A progressive file whose last scans are missing decodes to a blurred image without a word. */
static void check_scans(Reader *r)
{
    j_decompress_ptr jpeg = &r->jpeg;
    if (!jpeg->progressive_mode) return;
    for (int c = 0; c < jpeg->num_components; c++)
        for (int k = 0; k < (c == 0 ? DCTSIZE2 : 1); k++)
            if (jpeg->coef_bits[c][k] != 0)
                reader_fail(r, ERR_INPUT,
                            "progressive scans are missing, expected the whole image");
}

static void read_rows(Reader *r)
{
    j_decompress_ptr jpeg = &r->jpeg;
    int samples = jpeg->out_color_space == JCS_RGB ? 3 : 1;
    jpeg_start_decompress(jpeg);
    check_scans(r);
    r->row = malloc((size_t)r->im.w * (size_t)samples);
    if (!r->row) reader_fail(r, ERR_SPACE, "out of memory");
    for (int y = 0; y < r->im.h; y++) {
        jpeg_read_scanlines(jpeg, &(JSAMPROW){r->row}, 1);
        colour_row(r->im.pixel + (size_t)y * r->im.w * r->im.planes, r->im.planes, &r->colour,
                   r->row, r->im.w, samples, 8);
    }
    jpeg_finish_decompress(jpeg);
}

/* False after a jump; r->status says why. */
static bool read_all(Reader *r)
{
    if (setjmp(r->jump)) return false;
    jpeg_create_decompress(&r->jpeg);
    r->jpeg.progress = &r->progress;
    read_header(r);
    read_rows(r);
    return true;
}

Status jpeg_decode(Image *im, Encoded in)
{
    Reader *r = calloc(1, sizeof *r);
    *im = (Image){0};
    if (!r) return FAIL(ERR_SPACE, "%s: no memory to read it", in.path);
    r->in = in;
    r->jpeg.client_data = r;
    r->jpeg.err = jpeg_std_error(&r->error);
    r->error.error_exit = on_error;
    r->error.emit_message = on_message;
    r->progress.progress_monitor = on_progress;
    if (read_all(r)) r->status = colour_check(&r->colour, &r->im, in.path);
    if (!r->status) r->status = image_orient(&r->im, r->orientation, in.path);
    jpeg_destroy_decompress(&r->jpeg);
    Status s = r->status;
    if (s) image_free(&r->im);
    *im = r->im;
    free(r->row);
    free(r);
    return s;
}
