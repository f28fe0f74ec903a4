/* make_image.c - image files for tests. */
#include "ref/make_image.h"
#include "base/file.h"
#include <jpeglib.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_bytes(png_structp png, png_bytep data, size_t n)
{
    Bytes *b = png_get_io_ptr(png);
    b->data = realloc(b->data, b->size + n);
    CHECK(b->data);
    memcpy(b->data + b->size, data, n);
    b->size += n;
}

static void nothing(png_structp png) { (void)png; }

Bytes make_png(const unsigned char *row, int h, int w, int color_type, int depth, int interlaced)
{
    Bytes b = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &b, add_bytes, nothing);
    png_set_IHDR(png, info, (png_uint_32)w, (png_uint_32)h, depth, color_type,
                 interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, 0, 0);
    if (color_type == PNG_COLOR_TYPE_PALETTE) {
        png_color ramp[256];
        int n = 1 << depth;
        for (int i = 0; i < n; i++)
            ramp[i].red = ramp[i].green = ramp[i].blue = (png_byte)(i * 255 / (n - 1));
        png_set_PLTE(png, info, ramp, n);
    }
    png_write_info(png, info);
    size_t row_bytes = png_get_rowbytes(png, info);
    int passes = png_set_interlace_handling(png);
    for (int p = 0; p < passes; p++)
        for (int y = 0; y < h; y++) png_write_row(png, row + (size_t)y * row_bytes);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return b;
}

Bytes make_jpeg(const unsigned char *row, int h, int w, int samples, int quality, int progressive)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr error;
    unsigned char *data = NULL;
    unsigned long size = 0;
    jpeg.err = jpeg_std_error(&error);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &data, &size);
    jpeg.image_width = (JDIMENSION)w;
    jpeg.image_height = (JDIMENSION)h;
    jpeg.input_components = samples;
    jpeg.in_color_space = samples == 1 ? JCS_GRAYSCALE : samples == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, quality, TRUE);
    if (progressive) jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    for (int y = 0; y < h; y++) {
        JSAMPROW line = (JSAMPROW)(uintptr_t)(row + (size_t)y * (size_t)w * (size_t)samples);
        jpeg_write_scanlines(&jpeg, &line, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    return (Bytes){data, size};
}

Bytes with_app1(Bytes jpeg, const void *block, size_t size)
{
    CHECK(size + 2 <= 0xffff);
    Bytes b = {malloc(jpeg.size + size + 4), jpeg.size + size + 4};
    CHECK(b.data);
    const unsigned char head[] = {0xff, 0xe1, (unsigned char)((size + 2) >> 8),
                                  (unsigned char)(size + 2)};
    memcpy(b.data, jpeg.data, 2);
    memcpy(b.data + 2, head, 4);
    memcpy(b.data + 6, block, size);
    memcpy(b.data + 6 + size, jpeg.data + 2, jpeg.size - 2);
    return b;
}

Bytes with_orientation(Bytes jpeg, int orientation)
{
    unsigned char exif[] = {
        'E', 'x', 'i', 'f', 0,    0, 'M', 'M', 0, 42, 0, 0, 0,
        8,   0,   1,   1,   0x12, 0, 3,   0,   0, 0,  1, 0, (unsigned char)orientation,
        0,   0,   0,   0,   0,    0};
    return with_app1(jpeg, exif, sizeof exif);
}

void make_film(unsigned char *out, int h, int w, uint32_t number)
{
    RandomKey k = {.seed = number, .stream = STREAM_TEST, .step = 77};
    double a[12];
    for (uint32_t i = 0; i < 12; i++) a[i] = random_uniform(k, i);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            double u = (double)x / w, v = (double)y / h, sum = 0;
            for (int j = 0; j < 4; j++)
                sum += sin(6.28 * (u * 4 * a[3 * j] + v * 4 * a[3 * j + 1] + a[3 * j + 2]));
            out[(size_t)y * (size_t)w + (size_t)x] = (unsigned char)lrint(127.5 + 31 * sum);
        }
}

void write_film(const char *path, int h, int w, uint32_t number)
{
    size_t n = (size_t)h * (size_t)w, length = strlen(path);
    unsigned char *grey = malloc(n), *rgb = malloc(3 * n);
    CHECK(grey && rgb);
    make_film(grey, h, w, number);
    for (size_t i = 0; i < 3 * n; i++) rgb[i] = grey[i / 3];
    bool jpeg = !strcmp(path + length - 4, ".jpg") || !strcmp(path + length - 5, ".jpeg");
    Bytes b =
        jpeg ? make_jpeg(rgb, h, w, 3, 95, 0) : make_png(grey, h, w, PNG_COLOR_TYPE_GRAY, 8, 0);
    CHECK(!file_write(path, b.data, b.size));
    free(b.data);
    free(grey);
    free(rgb);
}
