/* image.c - which format a file has, grey from samples, orientation, texts. */
#include "data/image_codec.h"
#include <stdlib.h>
#include <string.h>

static const struct {
    size_t at, n;
    const char *magic, *name;
} other_format[] = {
    {128, 4, "DICM", "a DICOM file"},   {0, 4, "GIF8", "a GIF image"},
    {0, 4, "II*\0", "a TIFF image"},    {0, 4, "MM\0*", "a TIFF image"},
    {0, 2, "BM", "a BMP image"},        {8, 4, "WEBP", "a WebP image"},
    {4, 8, "ftypheic", "a HEIC image"}, {0, 4, "\0\0\0\x0c", "a JPEG 2000 image"},
    {0, 4, "%PDF", "a PDF document"},   {0, 2, "PK", "a zip archive"},
    {0, 2, "\x1f\x8b", "a gzip file"},  {0, 11, "version http", "a Git LFS pointer"},
};

static Status refuse_format(Encoded in)
{
    for (size_t i = 0; i < sizeof other_format / sizeof *other_format; i++) {
        size_t at = other_format[i].at, n = other_format[i].n;
        if (in.size >= at + n && !memcmp(in.data + at, other_format[i].magic, n))
            return FAIL(ERR_INPUT, "%s: is %s, expected PNG or JPEG", in.path,
                        other_format[i].name);
    }
    if (!in.size) return FAIL(ERR_INPUT, "%s: is empty, expected a PNG or JPEG image", in.path);
    return FAIL(ERR_INPUT, "%s: byte 0: no PNG or JPEG signature, expected one of the two",
                in.path);
}

static Status decode(Image *im, Encoded in)
{
    const void *data = in.data;
    size_t size = in.size;
    *im = (Image){0};
    if (size >= 8 && !memcmp(data, "\x89PNG\r\n\x1a\n", 8)) TRY(png_decode(im, in));
    else if (size >= 3 && !memcmp(data, "\xff\xd8\xff", 3)) TRY(jpeg_decode(im, in));
    else return refuse_format(in);
    return OK;
}

Status image_decode(Image *im, const void *data, size_t size, const char *path)
{
    return decode(im, (Encoded){data, size, path, 1});
}

static Status read_planes(Image *im, const char *path, int planes)
{
    char *data;
    size_t size;
    *im = (Image){0};
    TRY(file_read(&data, &size, path, IMAGE_MAX_BYTES));
    Status s = decode(im, (Encoded){(unsigned char *)data, size, path, planes});
    free(data);
    return s;
}

Status image_read(Image *im, const char *path) { return read_planes(im, path, 1); }
Status image_read_colour(Image *im, const char *path) { return read_planes(im, path, 3); }

void image_free(Image *im)
{
    for (int i = 0; i < im->n_text; i++) {
        free(im->text[i].key);
        free(im->text[i].value);
    }
    free(im->text);
    free(im->pixel);
    *im = (Image){0};
}

Status image_alloc(Image *im, int64_t h, int64_t w, const char *path)
{
    if (h < 1 || w < 1 || h > IMAGE_MAX_SIDE || w > IMAGE_MAX_SIDE || h * w > IMAGE_MAX_PIXELS)
        return FAIL(ERR_INPUT, "%s: header: %lld x %lld pixels, expected 1 to %d million", path,
                    (long long)w, (long long)h, IMAGE_MAX_PIXELS / 1000000);
    if (!im->planes) im->planes = 1;
    im->pixel = malloc((size_t)(h * w * im->planes) * sizeof *im->pixel);
    if (!im->pixel)
        return FAIL(ERR_SPACE, "%s: no memory for %lld x %lld pixels", path, (long long)w,
                    (long long)h);
    im->h = (int)h;
    im->w = (int)w;
    return OK;
}

void image_add_text(Image *im, const char *key, const char *value)
{
    im->text = realloc(im->text, (size_t)(im->n_text + 1) * sizeof *im->text);
    CHECK(im->text);
    ImageText *t = &im->text[im->n_text++];
    t->key = strdup(key);
    t->value = strdup(value);
    CHECK(t->key && t->value);
}

const char *image_text(const Image *im, const char *key)
{
    for (int i = 0; i < im->n_text; i++)
        if (!strcmp(im->text[i].key, key)) return im->text[i].value;
    return NULL;
}

bool image_says_synthetic(const Image *im)
{
    const char *xmp = image_text(im, "XML:com.adobe.xmp");
    /* trainedAlgorithmicMedia, compositeWithTrainedAlgorithmicMedia, algorithmicMedia */
    return image_text(im, "Synthetic") || (xmp && strstr(xmp, "lgorithmicMedia"));
}

/* ---- grey from samples ---------------------------------------------------------------- */

static int sample_at(const unsigned char *row, size_t i, int bits)
{
    return bits == 16 ? row[2 * i] << 8 | row[2 * i + 1] : row[i];
}

void colour_row(float *out, int planes, Colour *c, const unsigned char *row, int w, int samples,
                int bits)
{
    int full = (1 << bits) - 1, strong = full / 255 * 32;
    int64_t chroma = 0;
    bool alpha = samples == 2 || samples == 4;
    for (int x = 0; x < w; x++) {
        size_t at = (size_t)x * samples;
        int r = sample_at(row, at, bits);
        if (alpha && sample_at(row, at + samples - 1, bits) != full) c->clear++;
        if (planes == 3)
            for (int k = 0; k < 3; k++)
                out[3 * x + k] =
                    (float)sample_at(row, at + (samples < 3 ? 0 : (size_t)k), bits) / (float)full;
        else if (samples < 3) out[x] = (float)r / (float)full;
        if (planes == 3 || samples < 3) continue;
        int g = sample_at(row, at + 1, bits), b = sample_at(row, at + 2, bits);
        int high = r > g ? r : g, low = r < g ? r : g;
        if (b > high) high = b;
        if (b < low) low = b;
        chroma += high - low;
        c->strong += high - low > strong;
        out[x] =
            (float)(r + g + b) / (float)(3 * full); /* both whole below 2^24: v/full if r=g=b=v */
    }
    c->chroma += (double)chroma / full;
}

Status colour_check(const Colour *c, const Image *im, const char *path)
{
    double n = (double)im->h * im->w, mean = c->chroma / n, strong = (double)c->strong / n;
    if (c->clear)
        return FAIL(ERR_INPUT, "%s: %lld pixels are transparent, expected an opaque film", path,
                    (long long)c->clear);
    if (mean > 3.0 / 255 || strong > 0.005)
        return FAIL(ERR_INPUT,
                    "%s: is a colour image (mean chroma %.3f, %.2f %% coloured pixels), "
                    "expected grey",
                    path, mean, 100 * strong);
    return OK;
}

/* ---- orientation ---------------------------------------------------------------------- */

static uint32_t tiff_number(const unsigned char *p, int n_bytes, bool little)
{
    uint32_t v = 0;
    for (int i = 0; i < n_bytes; i++) v = v << 8 | p[little ? n_bytes - 1 - i : i];
    return v;
}

int exif_orientation(const unsigned char *exif, size_t size)
{
    enum { ORIENTATION = 0x0112, SHORT = 3 };
    if (size < 8 || (memcmp(exif, "II*\0", 4) && memcmp(exif, "MM\0*", 4))) return 1;
    bool little = exif[0] == 'I';
    size_t at = tiff_number(exif + 4, 4, little);
    if (at > size || size - at < 2) return 1;
    uint32_t n = tiff_number(exif + at, 2, little);
    at += 2;
    for (uint32_t i = 0; i < n && size - at >= 12; i++, at += 12) {
        const unsigned char *e = exif + at;
        if (tiff_number(e, 2, little) != ORIENTATION) continue;
        uint32_t v = tiff_number(e + 8, 2, little);
        bool usable = tiff_number(e + 2, 2, little) == SHORT && v >= 1 && v <= 8;
        return usable ? (int)v : 1;
    }
    return 1;
}

/* Orientations 5..8 swap the axes; of the rest of the number, what is read backwards. */
Status image_orient(Image *im, int orientation, const char *path)
{
    static const struct {
        bool swap, up, left;
    } turn[9] = {
        {0}, {0, 0, 0}, {0, 0, 1}, {0, 1, 1}, {0, 1, 0}, {1, 0, 0}, {1, 1, 0}, {1, 1, 1}, {1, 0, 1},
    };
    if (orientation < 2 || orientation > 8) return OK;
    bool swap = turn[orientation].swap;
    Image r = {.planes = im->planes};
    size_t planes = (size_t)im->planes;
    TRY(image_alloc(&r, swap ? im->w : im->h, swap ? im->h : im->w, path));
    for (int y = 0; y < r.h; y++)
        for (int x = 0; x < r.w; x++) {
            int from_y = swap ? x : y, from_x = swap ? y : x;
            if (turn[orientation].up) from_y = im->h - 1 - from_y;
            if (turn[orientation].left) from_x = im->w - 1 - from_x;
            memcpy(r.pixel + ((size_t)y * r.w + x) * planes,
                   im->pixel + ((size_t)from_y * im->w + from_x) * planes,
                   planes * sizeof *r.pixel);
        }
    free(im->pixel);
    im->pixel = r.pixel;
    im->h = r.h;
    im->w = r.w;
    return OK;
}
