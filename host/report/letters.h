/* letters.h - a tiny font of dots, for titles inside pictures: A-Z, 0-9, space and : - _ ( ) . */
#ifndef LETTERS_H
#define LETTERS_H

enum { LETTER_HEIGHT = 7, LETTER_WIDTH = 5 };

/* Draws text black into pixel [h, w] from (top, left), each dot scale x scale, until the border.
 * Small letters are drawn as capitals, other signs as a gap. */
void letters_draw(float *pixel, int h, int w, int top, int left, int scale, const char *text);
#endif
