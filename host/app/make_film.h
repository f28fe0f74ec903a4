/* make_film.h - what img2img and txt2img share: all but whether there is a film to start from. */
#ifndef MAKE_FILM_H
#define MAKE_FILM_H
#include "app/commands.h"

Status make_film_command(App *app, int argc, char **argv, bool from_film);
#endif
