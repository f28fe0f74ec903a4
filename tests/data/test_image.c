/* test_image.c - films in and out: exact samples, refused damage, resampling. */
#include "data/image_codec.h"
#include "ref/make_image.h"
#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

static RandomKey key(uint32_t step)
{
    return (RandomKey){.seed = 11, .stream = STREAM_TEST, .step = step};
}

static void must_read(Image *im, Bytes b)
{
    Status s = image_decode(im, b.data, b.size, "test image");
    if (s) fail_msg("%s", status_message());
}

static void must_refuse(const void *data, size_t size, const char *words)
{
    Image im;
    assert_int_equal(image_decode(&im, data, size, "film.x"), ERR_INPUT);
    assert_null(im.pixel);
    assert_ptr_equal(strstr(status_message(), "film.x: "), status_message());
    if (words && !strstr(status_message(), words))
        fail_msg("\"%s\" not in: %s", words, status_message());
}

/* Every depth and colour type, interlaced or not, gives v / (2^bits - 1) exactly. */
static void png_samples_are_exact(void **state)
{
    (void)state;
    static const struct {
        int type, depth, samples;
    } kind[] = {
        {PNG_COLOR_TYPE_GRAY, 1, 1},        {PNG_COLOR_TYPE_GRAY, 2, 1},
        {PNG_COLOR_TYPE_GRAY, 4, 1},        {PNG_COLOR_TYPE_GRAY, 8, 1},
        {PNG_COLOR_TYPE_GRAY, 16, 1},       {PNG_COLOR_TYPE_PALETTE, 1, 1},
        {PNG_COLOR_TYPE_PALETTE, 2, 1},     {PNG_COLOR_TYPE_PALETTE, 4, 1},
        {PNG_COLOR_TYPE_PALETTE, 8, 1},     {PNG_COLOR_TYPE_RGB, 8, 3},
        {PNG_COLOR_TYPE_GRAY_ALPHA, 8, 2},  {PNG_COLOR_TYPE_GRAY_ALPHA, 16, 2},
        {PNG_COLOR_TYPE_RGB_ALPHA, 8, 4},
    };
    enum { H = 13, W = 19 };
    for (int k = 0; k < (int)(sizeof kind / sizeof *kind) * 2; k++) {
        int type = kind[k / 2].type, depth = kind[k / 2].depth, samples = kind[k / 2].samples;
        int full = (1 << depth) - 1, row_bytes = (W * samples * depth + 7) / 8, value[H][W];
        unsigned char *row = calloc(H, (size_t)row_bytes);
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                int v = value[y][x] =
                    (int)random_below(key((uint32_t)k), (uint32_t)(y * W + x), (uint32_t)full + 1);
                for (int c = 0; c < samples; c++) {
                    int bit = (x * samples + c) * depth;
                    int sample = samples % 2 == 0 && c == samples - 1 ? full : v;
                    unsigned char *to = row + y * row_bytes + bit / 8;
                    if (depth == 16) {
                        to[0] = (unsigned char)(sample >> 8);
                        to[1] = (unsigned char)sample;
                    } else to[0] |= (unsigned char)(sample << (8 - depth - bit % 8));
                }
            }
        Bytes b = make_png(row, H, W, type, depth, k % 2);
        Image im;
        must_read(&im, b);
        assert_int_equal(im.h, H);
        assert_int_equal(im.w, W);
        assert_int_equal(im.bits, depth);
        assert_int_equal(im.channels, type & PNG_COLOR_MASK_COLOR ? 3 : 1);
        for (int i = 0; i < H * W; i++)
            if (im.pixel[i] != (float)value[i / W][i % W] / (float)full)
                fail_msg("kind %d pixel %d: %.9g for %d/%d", k, i, (double)im.pixel[i],
                         value[i / W][i % W], full);
        image_free(&im);
        free(b.data);
        free(row);
    }
}

static void deep_colour_is_refused(void **state)
{
    (void)state;
    enum { H = 5, W = 3 };
    unsigned char row[H * W * 8] = {0};
    static const int type[] = {PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_RGB_ALPHA};
    for (int k = 0; k < 4; k++) {
        Bytes b = make_png(row, H, W, type[k / 2], 16, k % 2);
        Image im;
        assert_int_equal(image_decode(&im, b.data, b.size, "deep.png"), ERR_INPUT);
        assert_non_null(strstr(status_message(), "16-bit colour"));
        free(b.data);
    }
}

static void jpeg_is_read_as_grey(void **state)
{
    (void)state;
    enum { H = 45, W = 37 };
    unsigned char grey[H * W], rgb[3 * H * W];
    make_film(grey, H, W, 5);
    for (int i = 0; i < 3 * H * W; i++) rgb[i] = grey[i / 3];
    for (int k = 0; k < 4; k++) {
        Bytes b = k < 2 ? make_jpeg(grey, H, W, 1, 98, k % 2) : make_jpeg(rgb, H, W, 3, 98, k % 2);
        Image im;
        must_read(&im, b);
        assert_int_equal(im.channels, k < 2 ? 1 : 3);
        assert_int_equal(im.bits, 8);
        assert_true(im.h == H && im.w == W);
        for (int i = 0; i < H * W; i++) /* quality 98 quantises by 1-4 of 255 per coefficient */
            assert_true(fabs(im.pixel[i] - grey[i] / 255.0) < 6 / 255.0);
        image_free(&im);
        free(b.data);
    }
}

/* A picture turned by hand and stored with the tag that undoes the turn decodes to itself. */
static void orientation_is_applied(void **state)
{
    (void)state;
    enum { H = 24, W = 40 };
    unsigned char film[H * W], turned[H * W];
    make_film(film, H, W, 9);
    Image want;
    Bytes plain = make_jpeg(film, H, W, 1, 100, 0);
    must_read(&want, plain);
    for (int o = 1; o <= 8; o++) {
        int h = o < 5 ? H : W, w = o < 5 ? W : H;
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) { /* where EXIF stores the pixel that is shown at (y, x) */
                int at[9][2] = {{0},
                                {y, x},
                                {y, W - 1 - x},
                                {H - 1 - y, W - 1 - x},
                                {H - 1 - y, x},
                                {x, y},
                                {W - 1 - x, y},
                                {W - 1 - x, H - 1 - y},
                                {x, H - 1 - y}};
                turned[at[o][0] * w + at[o][1]] = film[y * W + x];
            }
        Bytes stored = make_jpeg(turned, h, w, 1, 100, 0), tagged = with_orientation(stored, o);
        Image im;
        must_read(&im, tagged);
        assert_true(im.h == H && im.w == W);
        for (int i = 0; i < H * W; i++)
            assert_true(fabs(im.pixel[i] - film[i] / 255.0) < 3 / 255.0);
        image_free(&im);
        free(stored.data);
        free(tagged.data);
    }
    Bytes odd = with_orientation(plain, 9);
    Image im;
    must_read(&im, odd);
    assert_memory_equal(im.pixel, want.pixel, sizeof(float) * H * W);
    image_free(&im);
    image_free(&want);
    free(odd.data);
    free(plain.data);
}

/* At each length of its block, cut short within it, beside an EXIF block, behind another name space. */
static void xmp_of_a_jpeg_is_read(void **state)
{
    (void)state;
    enum { H = 16, W = 16, HEAD = 29, MOST = 65533 };
    static const char head[HEAD] = "http://ns.adobe.com/xap/1.0/",
                      says[] = "<a b=\"http://cv.iptc.org/newscodes/digitalsourcetype/"
                               "trainedAlgorithmicMedia\"/>";
    unsigned char film[H * W];
    char *block = malloc(MOST);
    Image im;
    assert_non_null(block);
    make_film(film, H, W, 3);
    Bytes plain = make_jpeg(film, H, W, 1, 90, 0);
    for (size_t n = 0; n <= MOST; n = n < 160 ? n + 1 : n < MOST ? MOST : n + 1) {
        size_t end = HEAD + sizeof says - 1; /* no 0 behind it; blanks, as editors leave */
        memset(block, ' ', MOST);
        memcpy(block, head, HEAD);
        memcpy(block + HEAD, says, sizeof says - 1);
        Bytes tagged = with_app1(plain, block, n), both = with_orientation(tagged, 6);
        must_read(&im, n % 2 ? tagged : both);
        const char *xmp = image_text(&im, "XML:com.adobe.xmp");
        assert_int_equal(xmp != NULL, n >= HEAD);
        if (xmp) assert_int_equal(strlen(xmp), n - HEAD);
        if (xmp) assert_memory_equal(xmp, block + HEAD, n - HEAD);
        if (n < HEAD + 60) assert_false(image_says_synthetic(&im));
        if (n >= end) assert_true(image_says_synthetic(&im));
        image_free(&im);
        block[HEAD - 1] = 'x'; /* another name space */
        Bytes other = with_app1(plain, block, n);
        tagged.data[4] = tagged.data[5] = 0xff; /* longer than the file */
        if (n < MOST) must_refuse(tagged.data, tagged.size, "truncated");
        must_read(&im, other);
        assert_int_equal(im.n_text, 0);
        image_free(&im);
        free(other.data);
        free(both.data);
        free(tagged.data);
    }
    free(plain.data);
    free(block);
}

static void truncation_is_never_accepted(void **state)
{
    (void)state;
    enum { H = 17, W = 23 };
    unsigned char film[3 * H * W];
    make_film(film, H, 3 * W, 1);
    for (int i = 0; i < 3 * H * W; i++) film[i] = film[i / 3 * 3];
    for (int kind = 0; kind < 5; kind++) {
        Bytes b = kind < 2 ? make_png(film, H, W, PNG_COLOR_TYPE_RGB, 8, kind)
                           : make_jpeg(film, H, W, kind == 2 ? 1 : 3, 90, kind == 4);
        for (size_t n = 0; n < b.size; n++) {
            unsigned char *cut =
                malloc(n ? n : 1); /* its own block: sanitizers see every over-read */
            memcpy(cut, b.data, n);
            must_refuse(cut, n, n > 60 ? "truncated" : NULL);
            free(cut);
        }
        Image im;
        must_read(&im, b);
        image_free(&im);
        free(b.data);
    }
}

/* Any changed byte of a PNG is seen: signature, header, checksums, data. In a JPEG not every
 * change can be; there it must only not do harm. */
static void damage_is_seen(void **state)
{
    (void)state;
    enum { H = 11, W = 14 };
    unsigned char film[H * W];
    make_film(film, H, W, 3);
    Bytes png = make_png(film, H, W, PNG_COLOR_TYPE_GRAY, 8, 0),
          jpeg = make_jpeg(film, H, W, 1, 90, 0);
    for (size_t i = 0; i < png.size; i++) {
        unsigned char flip = (unsigned char)(1u << random_below(key(50), (uint32_t)i, 8));
        png.data[i] ^= flip;
        must_refuse(png.data, png.size, NULL);
        png.data[i] ^= flip;
    }
    for (uint32_t i = 0; i < 3 * (uint32_t)jpeg.size; i++) {
        unsigned char *at = jpeg.data + random_below(key(51), i, (uint32_t)jpeg.size), old = *at;
        *at = (unsigned char)random_bits(key(52), i);
        Image im;
        if (!image_decode(&im, jpeg.data, jpeg.size, "damaged")) image_free(&im);
        *at = old;
    }
    free(png.data);
    free(jpeg.data);
}

static void set_size(Bytes png, uint32_t w, uint32_t h)
{
    for (int i = 0; i < 4; i++) {
        png.data[16 + i] = (unsigned char)(w >> (24 - 8 * i));
        png.data[20 + i] = (unsigned char)(h >> (24 - 8 * i));
    }
    uint32_t crc = (uint32_t)crc32(0, png.data + 12, 17);
    for (int i = 0; i < 4; i++) png.data[29 + i] = (unsigned char)(crc >> (24 - 8 * i));
}

static void huge_headers_are_refused(void **state)
{
    (void)state;
    unsigned char film[64];
    make_film(film, 8, 8, 3);
    Bytes png = make_png(film, 8, 8, PNG_COLOR_TYPE_GRAY, 8, 0),
          jpeg = make_jpeg(film, 8, 8, 1, 90, 0);
    static const uint32_t size[][2] = {
        {0, 8},          {8, 0},         {0x7fffffff, 0x7fffffff},
        {0xffffffff, 8}, {65000, 65000}, {8192, 8193},
        {8192, 8192},    {8, 9},
    };
    for (int i = 0; i < 8; i++) {
        set_size(png, size[i][0], size[i][1]);
        must_refuse(png.data, png.size,
                    i == 5  ? "8192 x 8193"
                    : i > 5 ? i == 6 ? "truncated" : NULL
                            : NULL);
    }
    for (size_t i = 0; i + 9 < jpeg.size; i++)
        if (jpeg.data[i] == 0xff && jpeg.data[i + 1] == 0xc0) memset(jpeg.data + i + 5, 0xff, 4);
    must_refuse(jpeg.data, jpeg.size, NULL);
    free(png.data);
    free(jpeg.data);
}

static void other_kinds_are_named(void **state)
{
    (void)state;
    enum { H = 20, W = 30 };
    unsigned char film[4 * H * W], grey[H * W];
    make_film(film, H, 4 * W, 4);
    Bytes cmyk = make_jpeg(film, H, W, 4, 90, 0),
          rgba = make_png(film, H, W, PNG_COLOR_TYPE_RGB_ALPHA, 8, 0);
    must_refuse(cmyk.data, cmyk.size, "is a CMYK image");
    must_refuse(rgba.data, rgba.size, "transparent");
    make_film(grey, H, W, 4);
    for (int i = 0; i < H * W; i++) {
        film[3 * i] = (unsigned char)(grey[i] / 2 + 10); /* a warm tint */
        film[3 * i + 1] = film[3 * i + 2] = (unsigned char)(grey[i] / 2);
    }
    Bytes tint = make_png(film, H, W, PNG_COLOR_TYPE_RGB, 8, 0),
          jpeg = make_jpeg(film, H, W, 3, 95, 0);
    must_refuse(tint.data, tint.size, "is a colour image");
    must_refuse(jpeg.data, jpeg.size, "is a colour image");
    must_refuse("GIF89a......", 12, "is a GIF image");
    must_refuse("plain text", 10, "no PNG or JPEG signature");
    must_refuse("", 0, "is empty");
    free(cmyk.data);
    free(rgba.data);
    free(tint.data);
    free(jpeg.data);
}

static void write_then_read(void **state)
{
    (void)state;
    enum { H = 31, W = 17 };
    float pixel[H * W];
    for (int i = 0; i < H * W; i++)
        pixel[i] = (float)(random_uniform(key(8), (uint32_t)i) * 1.2 - 0.1);
    char path[64];
    snprintf(path, sizeof path, "/tmp/test_image-%ld.png", (long)getpid());
    const ImageText text[] = {{(char *)"Synthetic", (char *)"yes"},
                              {(char *)"Prompt", (char *)"caf\xc3\xa9 \x01\xff<b>"}};
    assert_int_equal(image_write_png(path, pixel, H, W, text, 2), OK);
    Image im;
    if (image_read(&im, path)) fail_msg("%s", status_message());
    for (int i = 0; i < H * W; i++) {
        float p = pixel[i] < 0 ? 0 : pixel[i] > 1 ? 1 : pixel[i];
        assert_true(im.pixel[i] == (float)lrintf(255 * p) / 255);
    }
    assert_string_equal(image_text(&im, "Prompt"), "caf\xc3\xa9 ?\?<b>");
    assert_true(image_says_synthetic(&im));
    assert_null(image_text(&im, "Other"));

    char *a, *b;
    size_t n_a, n_b;
    assert_int_equal(image_encode_png(&a, &n_a, pixel, H, W, text, 2, path), OK);
    assert_int_equal(file_read(&b, &n_b, path, 1 << 20), OK);
    assert_true(n_a == n_b && !memcmp(a, b, n_a));
    free(a);
    free(b);

    unlink(path);
    pixel[40] = NAN;
    assert_int_equal(image_write_png(path, pixel, H, W, NULL, 0), ERR_NUMERIC);
    assert_false(file_exists(path));
    image_free(&im);
}

/* Colour is kept as it is; grey files have three equal planes; a box is fitted plane by plane. */
static void colour_is_kept(void **state)
{
    (void)state;
    enum { H = 24, W = 40 };
    float pixel[H * W * 3];
    Image im, fit, grey;
    char path[64];
    for (int i = 0; i < H * W * 3; i++)
        pixel[i] = (float)lrint(255 * random_uniform(key(9), (uint32_t)i)) / 255;
    snprintf(path, sizeof path, "/tmp/test_image-%ld.png", (long)getpid());
    assert_int_equal(image_write_colour_png(path, pixel, H, W, NULL, 0), OK);
    assert_int_equal(image_read(&im, path), ERR_INPUT);
    assert_int_equal(image_read_colour(&im, path), OK);
    assert_true(im.h == H && im.w == W && im.planes == 3);
    assert_memory_equal(im.pixel, pixel, sizeof pixel);
    assert_int_equal(image_fit_box(&fit, &im, H + 8, W), OK);
    assert_memory_equal(fit.pixel + 4 * W * 3, pixel, sizeof pixel);
    for (int i = 0; i < 4 * W * 3; i++) assert_true(fit.pixel[i] == 0);
    image_free(&im);
    image_free(&fit);

    assert_int_equal(image_write_png(path, pixel, H, W, NULL, 0), OK);
    assert_int_equal(image_read_colour(&im, path), OK);
    assert_int_equal(image_read(&grey, path), OK);
    for (int i = 0; i < H * W * 3; i++) assert_true(im.pixel[i] == grey.pixel[i / 3]);
    image_free(&im);
    image_free(&grey);
    unlink(path);
}

/* The triangle filter from its definition, in double, in two dimensions at once. */
static double filtered(const Image *in, int h, int w, int y, int x)
{
    double sy = (double)in->h / h, sx = (double)in->w / w, cy = (y + 0.5) * sy, cx = (x + 0.5) * sx;
    double ry = fmax(sy, 1), rx = fmax(sx, 1), sum = 0, total = 0;
    for (int i = 0; i < in->h; i++)
        for (int j = 0; j < in->w; j++) {
            double weight =
                fmax(0, 1 - fabs(i + 0.5 - cy) / ry) * fmax(0, 1 - fabs(j + 0.5 - cx) / rx);
            sum += weight * (double)in->pixel[i * in->w + j];
            total += weight;
        }
    return sum / total;
}

static void resize_is_its_definition(void **state)
{
    (void)state;
    static const int size[][4] = {{31, 47, 16, 16}, {9, 7, 20, 33}, {64, 64, 64, 64},
                                  {50, 1, 3, 2},    {1, 1, 5, 4},   {100, 30, 7, 29},
                                  {12, 40, 13, 39}};
    for (int k = 0; k < 7; k++) {
        Image in = {0}, out;
        assert_int_equal(image_alloc(&in, size[k][0], size[k][1], "in"), OK);
        for (int i = 0; i < in.h * in.w; i++)
            in.pixel[i] = (float)random_uniform(key(100 + (uint32_t)k), (uint32_t)i);
        assert_int_equal(image_resize(&out, &in, size[k][2], size[k][3]), OK);
        for (int y = 0; y < out.h; y++)
            for (int x = 0; x < out.w; x++) {
                double want = filtered(&in, out.h, out.w, y, x), got = out.pixel[y * out.w + x];
                /* at most 35 terms an axis, weights sum to 1, values below 1 */
                assert_true(fabs(got - want) < 8 * 0x1p-24 * (1 + sqrt(70)));
            }
        if (size[k][0] == 64) assert_memory_equal(in.pixel, out.pixel, sizeof(float) * 64 * 64);
        image_free(&in);
        image_free(&out);
    }
}

static void fit_keeps_the_aspect(void **state)
{
    (void)state;
    Image in = {0}, out;
    assert_int_equal(image_alloc(&in, 30, 60, "in"), OK);
    for (int i = 0; i < 30 * 60; i++) in.pixel[i] = 0.75f;
    assert_int_equal(image_fit(&out, &in, 40), OK);
    assert_true(out.h == 40 && out.w == 40);
    for (int i = 0; i < 1600; i++) {
        bool film = i / 40 >= 10 && i / 40 < 30;
        assert_true(fabsf(out.pixel[i] - (film ? 0.75f : 0)) < 1e-6f);
    }
    image_free(&in);
    image_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(png_samples_are_exact),    cmocka_unit_test(deep_colour_is_refused),
        cmocka_unit_test(jpeg_is_read_as_grey),     cmocka_unit_test(xmp_of_a_jpeg_is_read),
        cmocka_unit_test(orientation_is_applied),   cmocka_unit_test(truncation_is_never_accepted),
        cmocka_unit_test(damage_is_seen),           cmocka_unit_test(huge_headers_are_refused),
        cmocka_unit_test(other_kinds_are_named),    cmocka_unit_test(write_then_read),
        cmocka_unit_test(colour_is_kept),
        cmocka_unit_test(resize_is_its_definition), cmocka_unit_test(fit_keeps_the_aspect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
