/* make_image.h - image files for tests, made with the format libraries themselves. */
#ifndef MAKE_IMAGE_H
#define MAKE_IMAGE_H
#include "base/random.h"
#include <stddef.h>
#include <stdint.h>

typedef struct {
    unsigned char *data;
    size_t size;
} Bytes; /* data: heap, of the caller */

/* PNG of the given libpng colour type and depth; row holds h rows of packed samples as the file
 * has them (16 bits big-endian). A palette image gets the grey ramp i * 255 / (2^depth - 1). */
Bytes make_png(const unsigned char *row, int h, int w, int color_type, int depth, int interlaced);

/* samples: 1 grey, 3 RGB, 4 CMYK. */
Bytes make_jpeg(const unsigned char *row, int h, int w, int samples, int quality, int progressive);

/* JPEG with an EXIF block behind its first marker that asks for the orientation. */
Bytes with_orientation(Bytes jpeg, int orientation);

/* JPEG with an APP1 block of these bytes, at most 65533, behind its first marker. */
Bytes with_app1(Bytes jpeg, const void *block, size_t size);

/* A smooth grey film, different for each number: [h, w] in 0..255. */
void make_film(unsigned char *out, int h, int w, uint32_t number);

/* Writes the film as a grey PNG, or as an RGB JPEG if the name ends in .jpeg or .jpg. */
void write_film(const char *path, int h, int w, uint32_t number);
#endif
