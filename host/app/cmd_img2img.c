/* cmd_img2img.c - equipoise img2img: one film from another and a prompt. */
#include "app/make_film.h"

Status cmd_img2img(App *app, int argc, char **argv)
{
    return make_film_command(app, argc, argv, true);
}
