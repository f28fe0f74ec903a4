/* cmd_txt2img.c - equipoise txt2img: one film from a prompt. */
#include "app/make_film.h"

Status cmd_txt2img(App *app, int argc, char **argv)
{
    return make_film_command(app, argc, argv, false);
}
