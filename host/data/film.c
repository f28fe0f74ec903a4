/* film.c - reads and fits a film. */
#include "data/film.h"
#include "data/image.h"
#include <string.h>

Status film_read(float *pixel, const char *path, int size)
{
    Image raw = {0}, square = {0};
    Status s = image_read(&raw, path);
    if (!s) s = image_fit(&square, &raw, size);
    if (!s) memcpy(pixel, square.pixel, (size_t)size * (size_t)size * sizeof *pixel);
    image_free(&raw);
    image_free(&square);
    return s;
}
