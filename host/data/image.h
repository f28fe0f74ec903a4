/* image.h - X-ray films in and out: one grey channel, floats in [0, 1], 0 is black. (Colour only
 * where a caller asks for it.)
 *
 * image_read() decides by content, never by name, and refuses what it cannot read exactly:
 * truncated or damaged files, CMYK, 16-bit colour, transparent pixels, more than IMAGE_MAX_PIXELS.
 * Samples are v / (2^bits - 1) with no gamma, profile or significant-bits correction. The
 * orientation that a camera or scanner noted (EXIF) is applied.
 *
 * Colour. Films are often stored as RGB with grey content; the mean of the three channels is
 * taken. With chroma = max(r, g, b) - min(r, g, b) of a pixel, a file is a colour image, and
 * refused as one, when its mean chroma is above 3/255 (a tint) or more than 0.5 % of its pixels
 * are above 32/255 (coloured marks).
 *
 * All functions are thread-safe. Failures are ERR_INPUT, "path: place: found, expected".
 */
#ifndef IMAGE_H
#define IMAGE_H
#include "base/file.h"

enum {
    IMAGE_MAX_PIXELS = 64 << 20, /* checked before memory is taken */
    IMAGE_MAX_BYTES = 256 << 20, /* of a file                      */
    IMAGE_MAX_SIDE = 65500
};

typedef struct {
    char *key, *value;
} ImageText; /* owned by the image; value is UTF-8 */

typedef struct {
    float *pixel; /* owned: [h, w, planes]                            */
    int h, w;
    int planes;      /* 1: grey; 3: of image_read_colour                 */
    int bits;        /* of a sample in the file: 1, 2, 4, 8 or 16        */
    int channels;    /* in the file without transparency: 1 or 3         */
    ImageText *text; /* owned: [n_text] PNG text chunks; a JPEG's XMP    */
    int n_text;
} Image; /* starts as {0} */

Status image_read(Image *im, const char *path);
/* With three planes, red, green and blue, and no test for colour; of a grey file they are equal. */
Status image_read_colour(Image *im, const char *path);
Status image_decode(Image *im, const void *data, size_t size,
                    const char *path); /* path: for messages */
void image_free(Image *im);

const char *image_text(const Image *im, const char *key); /* NULL if the file has no such key */

/* True if the file says that it was generated: our key "Synthetic", or the IPTC digital source
 * type of generated media in its XMP. */
bool image_says_synthetic(const Image *im);

/* An 8-bit grey PNG; the same input gives the same bytes. A sample is round(255 p), half to even,
 * p clamped to [0, 1]; a NaN is ERR_NUMERIC and nothing is written. Keys are ours (1-79 ASCII
 * letters); in values, what is no printable UTF-8 becomes "?". *data is owned by the caller. */
Status image_encode_png(char **data, size_t *size, const float *pixel, int h, int w,
                        const ImageText *text, int n_text, const char *path);
Status image_write_png(const char *path, const float *pixel, int h, int w, const ImageText *text,
                       int n_text);
/* The same of pixel[h, w, 3]: an RGB PNG. */
Status image_write_colour_png(const char *path, const float *pixel, int h, int w,
                              const ImageText *text, int n_text);

/* Of grey images. Resampling with a triangle filter on pixel centres, one axis after the other:
 * bilinear interpolation when enlarging, its support widened by the factor when shrinking, so that
 * nothing aliases. Weights are normalised at the borders. */
Status image_resize(Image *out, const Image *in, int h, int w);

/* The whole film, of any planes, in a box or a size x size square: aspect ratio kept, centred, the
 * rest black. */
Status image_fit_box(Image *out, const Image *in, int h, int w);
Status image_fit(Image *out, const Image *in, int size);
#endif
