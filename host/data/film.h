/* film.h - one film as a network takes it. */
#ifndef FILM_H
#define FILM_H
#include "base/status.h"

/* The film at path in a size x size square (image_fit), grey in [0, 1], into pixel[size*size]. */
Status film_read(float *pixel, const char *path, int size);
#endif
