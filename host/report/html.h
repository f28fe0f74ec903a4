/* html.h - numbers and prose as HTML. Everything that is given as text comes out escaped. */
#ifndef HTML_H
#define HTML_H
#include "base/text.h"
#include <jansson.h>

/* A number as text, to be used within one expression: printf("%s", figure(v, 3).s). Minus is
 * U+2212; what is not finite is an en dash. */
typedef struct {
    char s[48];
} Figure;
Figure figure(double v, int decimals);
Figure figure_signed(double v, int decimals);
Figure figure_digits(double v, int digits); /* significant ones: 0.0123, 8.2e-7 */
Figure figure_count(double v);              /* 12,345 */
Figure figure_p(double v);                  /* "0.034" or "<0.001" */

typedef struct {
    char s[112];
} Span;
Span span(const json_t *ci, int decimals, bool sign); /* "[0.790, 0.876]"; en dash without one */

/* <p class="...">, text formatted, then escaped; kind NULL: no class. */
void html_para(Text *t, const char *kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void html_item(Text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* <li> */
void html_cell(Text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* <td> */
void html_head(Text *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))); /* row's <th> */
void html_h3(Text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A sentence that something was not measured or is not in the run. */
#define html_missing(t, ...) html_para(t, "missing", __VA_ARGS__)

/* Opens a table that scrolls sideways where it is too wide: class (or NULL), caption, then the
 * column titles parted by '|'. Rows and html_table_end() follow. */
void html_table(Text *t, const char *kind, const char *caption, const char *columns);
void html_table_end(Text *t);
#endif
