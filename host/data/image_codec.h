/* image_codec.h - what image.c and the two file formats share; private to host/data/image*.c. */
#ifndef IMAGE_CODEC_H
#define IMAGE_CODEC_H
#include "data/image.h"

typedef struct {
    const unsigned char *data;
    size_t size;
    const char *path;
    int planes; /* wanted: 1 or 3 */
} Encoded;

Status png_decode(Image *im, Encoded in);
Status jpeg_decode(Image *im, Encoded in);

/* Refuses sizes outside the limits, then takes memory for the pixels of im->planes (0: 1). */
Status image_alloc(Image *im, int64_t h, int64_t w, const char *path);

/* Adds an empty text; key and value are copied. */
void image_add_text(Image *im, const char *key, const char *value);

/* Running test for colour and transparency over the samples of a file. */
typedef struct {
    double chroma;  /* sum over pixels, in 0..1 each */
    int64_t strong; /* pixels with a lot of it       */
    int64_t clear;  /* pixels that are not opaque    */
} Colour;

/* One row of w pixels, to `planes` values each, of 1-4 samples each (grey, grey+alpha, RGB, RGBA), 8 bits or 16 bits
 * big-endian. */
void colour_row(float *out, int planes, Colour *c, const unsigned char *row, int w, int samples, int bits);
Status colour_check(const Colour *c, const Image *im, const char *path);

/* Turns the pixels as EXIF orientation 1..8 asks; the EXIF block starts with its TIFF header. */
int exif_orientation(const unsigned char *exif, size_t size); /* 1 where it says nothing usable */
Status image_orient(Image *im, int orientation, const char *path);
#endif
