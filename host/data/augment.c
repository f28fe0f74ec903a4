/* augment.c - position map, bilinear sampling, grey levels. */
#include "data/augment.h"
#include <math.h>

enum { DRAW_ANGLE, DRAW_X, DRAW_Y, DRAW_SCALE, DRAW_BRIGHTNESS, DRAW_CONTRAST, DRAW_FLIP };

static double either_way(RandomKey k, uint32_t element, double most)
{
    return most * (2 * random_uniform(k, element) - 1);
}

static float pixel_at(const float *in, int size, int y, int x)
{
    return y >= 0 && y < size && x >= 0 && x < size ? in[(size_t)y * (size_t)size + (size_t)x] : 0;
}

static float sample(const float *in, int size, double y, double x)
{
    double top = floor(y), left = floor(x);
    int i = (int)top, j = (int)left;
    float v = (float)(y - top), u = (float)(x - left);
    float above = pixel_at(in, size, i, j) * (1 - u) + pixel_at(in, size, i, j + 1) * u;
    float below = pixel_at(in, size, i + 1, j) * (1 - u) + pixel_at(in, size, i + 1, j + 1) * u;
    return above * (1 - v) + below * v;
}

void augment_apply(float *out, const float *in, int size, const Augment *a, RandomKey key)
{
    CHECK(a->scale >= 0 && a->scale < 1);
    double angle = either_way(key, DRAW_ANGLE, a->rotate_degrees) * 3.14159265358979323846 / 180;
    double right = either_way(key, DRAW_X, a->shift) * size,
           down = either_way(key, DRAW_Y, a->shift) * size;
    double scale = 1 / (1 + either_way(key, DRAW_SCALE, a->scale)); /* output to input */
    double mirror = a->flip && random_uniform(key, DRAW_FLIP) < 0.5 ? -1 : 1;
    float contrast = (float)(1 + either_way(key, DRAW_CONTRAST, a->contrast));
    float offset = (float)(either_way(key, DRAW_BRIGHTNESS, a->brightness)) + 0.5f * (1 - contrast);
    double c = cos(angle) * scale, s = sin(angle) * scale, centre = (size - 1) / 2.0;
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            double dy = y - centre - down, dx = mirror * (x - centre) - right;
            float p = sample(in, size, centre + c * dy - s * dx, centre + s * dy + c * dx);
            p = p * contrast + offset;
            out[(size_t)y * (size_t)size + (size_t)x] = p < 0 ? 0 : p > 1 ? 1 : p;
        }
}
