/* html.c - numbers and prose as HTML; see html.h. */
#include "report/html.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MINUS "\xe2\x88\x92"
#define EN_DASH "\xe2\x80\x93"

static Figure format(double v, int decimals, const char *plus)
{
    Figure f = {EN_DASH};
    if (!isfinite(v) || fabs(v) > 1e15) return f;
    char digits[32];
    snprintf(digits, sizeof digits, "%.*f", decimals, fabs(v));
    bool zero = strspn(digits, "0.") == strlen(digits); /* no "-0.000" */
    snprintf(f.s, sizeof f.s, "%s%s", zero ? "" : v < 0 ? MINUS : plus, digits);
    return f;
}

Figure figure(double v, int decimals) { return format(v, decimals, ""); }
Figure figure_signed(double v, int decimals) { return format(v, decimals, "+"); }

Figure figure_digits(double v, int digits)
{
    Figure f = {EN_DASH};
    if (isfinite(v)) snprintf(f.s, sizeof f.s, "%s%.*g", v < 0 ? MINUS : "", digits, fabs(v));
    return f;
}

Figure figure_count(double v)
{
    Figure plain = format(v, 0, ""), f = {""};
    size_t n = strlen(plain.s), k = 0;
    if (!isfinite(v)) return plain;
    for (size_t i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0 && plain.s[i - 1] >= '0' && plain.s[i - 1] <= '9') f.s[k++] = ',';
        f.s[k++] = plain.s[i];
    }
    f.s[k] = 0;
    return f;
}

Figure figure_p(double v)
{
    if (isfinite(v) && v < .001) return (Figure){"<0.001"};
    return format(v, 3, "");
}

Span span(const json_t *ci, int decimals, bool sign)
{
    Span s = {EN_DASH};
    const json_t *lo = json_array_get(ci, 0), *hi = json_array_get(ci, 1);
    if (!json_is_number(lo) || !json_is_number(hi)) return s;
    const char *plus = sign ? "+" : "";
    snprintf(s.s, sizeof s.s, "[%s, %s]", format(json_number_value(lo), decimals, plus).s,
             format(json_number_value(hi), decimals, plus).s);
    return s;
}

/* ---- prose ---------------------------------------------------------------------------- */

static void add_escaped(Text *t, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    size_t n = (size_t)vsnprintf(NULL, 0, fmt, ap) + 1;
    char *raw = malloc(n);
    CHECK(raw);
    vsnprintf(raw, n, fmt, again);
    va_end(again);
    text_add_html(t, raw);
    free(raw);
}

#define ADD_ESCAPED(t, fmt)                                                                        \
    do {                                                                                           \
        va_list ap_;                                                                               \
        va_start(ap_, fmt);                                                                        \
        add_escaped(t, fmt, ap_);                                                                  \
        va_end(ap_);                                                                               \
    } while (0)

void html_para(Text *t, const char *kind, const char *fmt, ...)
{
    if (kind) text_add(t, "<p class=\"%s\">", kind);
    else text_add(t, "<p>");
    ADD_ESCAPED(t, fmt);
    text_add(t, "</p>\n");
}

void html_item(Text *t, const char *fmt, ...)
{
    text_add(t, "<li>");
    ADD_ESCAPED(t, fmt);
    text_add(t, "</li>\n");
}

void html_cell(Text *t, const char *fmt, ...)
{
    text_add(t, "<td>");
    ADD_ESCAPED(t, fmt);
    text_add(t, "</td>");
}

void html_head(Text *t, const char *fmt, ...)
{
    text_add(t, "<th scope=\"row\">");
    ADD_ESCAPED(t, fmt);
    text_add(t, "</th>");
}

void html_h3(Text *t, const char *fmt, ...)
{
    text_add(t, "<h3>");
    ADD_ESCAPED(t, fmt);
    text_add(t, "</h3>\n");
}

void html_table(Text *t, const char *kind, const char *caption, const char *columns)
{
    text_add(t, "<div class=\"wide\"><table%s%s%s>\n<caption>", kind ? " class=\"" : "",
             kind ? kind : "", kind ? "\"" : "");
    text_add_html(t, caption);
    text_add(t, "</caption>\n<thead><tr>");
    for (;; columns++) {
        size_t n = strcspn(columns, "|");
        char *one = strndup(columns, n);
        CHECK(one);
        text_add(t, "<th scope=\"col\">");
        text_add_html(t, one);
        text_add(t, "</th>");
        free(one);
        columns += n;
        if (!*columns) break;
    }
    text_add(t, "</tr></thead>\n<tbody>\n");
}

void html_table_end(Text *t) { text_add(t, "</tbody></table></div>\n"); }
