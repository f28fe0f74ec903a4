/* plot.c - plots as inline SVG; see plot.h.
 *
 * A plot is drawn in a frame of fixed units that the page scales. Ticks stand at multiples of 1, 2
 * or 5 times a power of ten.
 */
#include "report/plot.h"
#include "report/html.h"
#include <math.h>
#include <string.h>

enum {
    WIDTH = 460,
    LEFT = 58,
    RIGHT = 16,
    TOP = 12,
    UNDER = 46,       /* tick labels and axis title */
    LEGEND_LINE = 19, /* per series */
    TALL_UNIT = WIDTH - LEFT - RIGHT,
    TALL = 240,
    LABELS = 146, /* of a forest plot's rows */
    FOREST_LINE = 24,
    SPAN_LINE = 20,
    SPAN_LABEL = 76, /* room at the right */
    TICKS_WANTED = 5
};

/* One axis: data lo..hi to frame from..to. */
typedef struct {
    double lo, hi, from, to, step;
    int decimals;
} Axis;

static double place(const Axis *a, double v)
{
    return a->from + (v - a->lo) / (a->hi - a->lo) * (a->to - a->from);
}

static double nice_step(double range)
{
    double raw = range / TICKS_WANTED, power = pow(10, floor(log10(raw))), m = raw / power;
    return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

/* widen: ends at ticks rather than at the data. whole: ticks at whole numbers only. */
static Axis axis_new(double lo, double hi, double from, double to, bool widen, bool whole)
{
    if (!(lo <= hi)) lo = 0, hi = 1; /* no data at all */
    if (!(hi - lo > 1e-9 * (fabs(lo) + fabs(hi) + 1e-300))) {
        double pad = lo ? fabs(lo) / 2 : .5;
        lo -= pad;
        hi += pad;
    }
    Axis a = {lo, hi, from, to, nice_step(hi - lo), 0};
    if (whole && a.step < 1) a.step = 1;
    if (widen) {
        a.lo = floor(lo / a.step + 1e-9) * a.step;
        a.hi = ceil(hi / a.step - 1e-9) * a.step;
    }
    double digits = -floor(log10(a.step) + 1e-9);
    a.decimals = digits > 0 ? (int)digits : 0;
    return a;
}

static void add_ticks(Text *t, const Axis *x, const Axis *y)
{
    text_add(t, "<g class=\"axis\">");
    for (double k = ceil(x->lo / x->step - 1e-9); k * x->step <= x->hi + 1e-9 * x->step; k++) {
        double at = place(x, k * x->step);
        text_add(t, "<path d=\"M%.1f %.1fV%.1f\"/><text x=\"%.1f\" y=\"%.1f\">%s</text>", at,
                 y->from, y->to, at, y->from + 17, figure(k * x->step, x->decimals).s);
    }
    for (double k = ceil(y->lo / y->step - 1e-9); k * y->step <= y->hi + 1e-9 * y->step; k++) {
        double at = place(y, k * y->step);
        text_add(t,
                 "<path d=\"M%.1f %.1fH%.1f\"/><text class=\"e\" x=\"%.1f\" y=\"%.1f\">%s</text>",
                 x->from, at, x->to, x->from - 7, at + 4, figure(k * y->step, y->decimals).s);
    }
    text_add(t, "</g>\n");
}

static void add_line(Text *t, const Series *s, const Axis *x, const Axis *y)
{
    int drawn = 0;
    text_add(t, "<path class=\"line c%d%s\" d=\"", (int)s->color, s->dashed ? " dashed" : "");
    for (int i = 0; i < s->n; i++) {
        if (!isfinite(s->x[i]) || !isfinite(s->y[i])) continue;
        text_add(t, "%s%.1f %.1f", drawn++ ? "L" : "M", place(x, s->x[i]), place(y, s->y[i]));
    }
    text_add(t, "\"/>\n");
    if (drawn > 1 && !s->dots) return;
    for (int i = 0; i < s->n; i++)
        if (isfinite(s->x[i]) && isfinite(s->y[i]))
            text_add(t, "<circle class=\"dot c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"/>\n",
                     (int)s->color, place(x, s->x[i]), place(y, s->y[i]),
                     s->n == 1 ? "4.5" : "2.5");
}

static void add_legend(Text *t, const Plot *p, double top)
{
    for (int i = 0; i < p->n_series; i++) {
        const Series *s = &p->series[i];
        if (!s->name) continue;
        text_add(
            t,
            "<path class=\"line c%d%s\" d=\"M%d %.1fh30\"/><text class=\"b\" x=\"%d\" y=\"%.1f\">",
            (int)s->color, s->dashed ? " dashed" : "", LEFT, top, LEFT + 38, top + 4);
        text_add_html(t, s->name);
        text_add(t, "</text>\n");
        top += LEGEND_LINE;
    }
}

static void open_svg(Text *t, const char *id, int height, const char *title,
                     const char *description)
{
    text_add(t,
             "<svg class=\"plot\" viewBox=\"0 0 %d %d\" role=\"img\" "
             "aria-labelledby=\"%s-t %s-d\"><title id=\"%s-t\">",
             WIDTH, height, id, id, id);
    text_add_html(t, title);
    text_add(t, "</title><desc id=\"%s-d\">", id);
    text_add_html(t, description);
    text_add(t, "</desc>\n");
}

static void add_label(Text *t, const char *attributes, const char *label)
{
    text_add(t, "<text %s>", attributes);
    text_add_html(t, label);
    text_add(t, "</text>\n");
}

static void ranges(double x[2], double y[2], const Plot *p)
{
    x[0] = y[0] = INFINITY;
    x[1] = y[1] = -INFINITY;
    for (int k = 0; k < p->n_series; k++)
        for (int i = 0; i < p->series[k].n; i++) {
            double u = p->series[k].x[i], v = p->series[k].y[i];
            if (!isfinite(u) || !isfinite(v)) continue;
            x[0] = fmin(x[0], u);
            x[1] = fmax(x[1], u);
            y[0] = fmin(y[0], v);
            y[1] = fmax(y[1], v);
        }
}

void plot_lines(Text *t, const Plot *p)
{
    double xr[2] = {0, 1}, yr[2] = {0, 1};
    int n_legend = 0, tall = p->unit ? TALL_UNIT : TALL, bottom = TOP + tall;
    char at[96];
    if (!p->unit) ranges(xr, yr, p);
    for (int i = 0; i < p->n_series; i++) n_legend += p->series[i].name != NULL;
    Axis x = axis_new(xr[0], xr[1], LEFT, WIDTH - RIGHT, false, !p->unit);
    Axis y = axis_new(yr[0], yr[1], bottom, TOP, true, false);
    text_add(t, "<figure class=\"plotbox\">\n<figcaption>");
    text_add_html(t, p->title);
    text_add(t, "</figcaption>\n");
    open_svg(t, p->id, bottom + UNDER + n_legend * LEGEND_LINE, p->title, p->description);
    add_ticks(t, &x, &y);
    snprintf(at, sizeof at, "class=\"m\" x=\"%.1f\" y=\"%d\"", (x.from + x.to) / 2, bottom + 35);
    add_label(t, at, p->x_label);
    snprintf(at, sizeof at, "class=\"m\" transform=\"translate(14 %.1f) rotate(-90)\"",
             (y.from + y.to) / 2);
    add_label(t, at, p->y_label);
    for (int i = 0; i < p->n_series; i++) add_line(t, &p->series[i], &x, &y);
    add_legend(t, p, bottom + UNDER + 5);
    text_add(t, "</svg>\n</figure>\n");
}

/* ---- differences ---------------------------------------------------------------------- */

static void add_forest_row(Text *t, const ForestRow *r, const Axis *x, double at)
{
    text_add(t, "<text class=\"e\" x=\"%d\" y=\"%.1f\">", LABELS - 10, at + 4);
    text_add_html(t, r->name);
    text_add(t, "</text>");
    if (!isfinite(r->value) || !isfinite(r->lo) || !isfinite(r->hi)) {
        text_add(t, "<text class=\"b\" x=\"%d\" y=\"%.1f\">undefined</text>\n", LABELS + 4, at + 4);
        return;
    }
    text_add(t,
             "<path class=\"line c1\" d=\"M%.1f %.1fH%.1fM%.1f %.1fv8M%.1f %.1fv8\"/>"
             "<circle class=\"%s c1\" cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"/>\n",
             place(x, r->lo), at, place(x, r->hi), place(x, r->lo), at - 4, place(x, r->hi), at - 4,
             r->strong ? "dot" : "ring", place(x, r->value), at);
}

void plot_forest(Text *t, const char *id, const char *title, const char *description,
                 const char *x_label, const ForestRow *row, int n)
{
    double lo = 0, hi = 0, bottom = TOP + n * FOREST_LINE;
    char at[96];
    for (int i = 0; i < n; i++) {
        if (!isfinite(row[i].value) || !isfinite(row[i].lo) || !isfinite(row[i].hi)) continue;
        lo = fmin(lo, fmin(row[i].lo, row[i].value));
        hi = fmax(hi, fmax(row[i].hi, row[i].value));
    }
    Axis x = axis_new(lo, hi, LABELS, WIDTH - RIGHT, true, false);
    text_add(t, "<figure class=\"plotbox\">\n<figcaption>");
    text_add_html(t, title);
    text_add(t, "</figcaption>\n");
    open_svg(t, id, (int)bottom + UNDER, title, description);
    text_add(t, "<g class=\"axis\">");
    for (double k = ceil(x.lo / x.step - 1e-9); k * x.step <= x.hi + 1e-9 * x.step; k++)
        text_add(t, "<path d=\"M%.1f %dV%.1f\"/><text x=\"%.1f\" y=\"%.1f\">%s</text>",
                 place(&x, k * x.step), TOP, bottom, place(&x, k * x.step), bottom + 17,
                 figure_signed(k * x.step, x.decimals).s);
    text_add(t, "<path class=\"zero\" d=\"M%.1f %dV%.1f\"/></g>\n", place(&x, 0), TOP, bottom);
    for (int i = 0; i < n; i++) add_forest_row(t, &row[i], &x, TOP + (i + .5) * FOREST_LINE);
    snprintf(at, sizeof at, "class=\"m\" x=\"%.1f\" y=\"%.1f\"", (x.from + x.to) / 2, bottom + 35);
    add_label(t, at, x_label);
    text_add(t, "</svg>\n</figure>\n");
}

/* ---- time ----------------------------------------------------------------------------- */

static void add_span_row(Text *t, const char *name, const char *label, int row,
                         const TimeSpan *span, int n, const Axis *x)
{
    double at = TOP + (row + .5) * SPAN_LINE, end = x->from;
    text_add(t, "<text class=\"e\" x=\"%d\" y=\"%.1f\">", LABELS - 10, at + 4);
    text_add_html(t, name);
    text_add(t, "</text>");
    for (int i = 0; i < n; i++) {
        if (span[i].row != row) continue;
        double from = place(x, span[i].from), to = fmax(place(x, span[i].to), from + 1);
        text_add(t, "<path class=\"bar c%d\" d=\"M%.1f %.1fH%.1fv12H%.1fz\"/>", !span[i].strong,
                 from, at - 6, to, from);
        end = fmax(end, to);
    }
    text_add(t, "<text class=\"b\" x=\"%.1f\" y=\"%.1f\">", end + 4, at + 4);
    text_add_html(t, label);
    text_add(t, "</text>\n");
}

void plot_spans(Text *t, const char *id, const char *title, const char *description,
                const char *x_label, const char *const *name, const char *const *label, int n_row,
                const TimeSpan *span, int n_span, const double *cut, int n_cut)
{
    double hi = 0, bottom = TOP + n_row * SPAN_LINE;
    char at[96];
    for (int i = 0; i < n_span; i++) hi = fmax(hi, span[i].to);
    Axis x = axis_new(0, hi, LABELS, WIDTH - SPAN_LABEL, false, false);
    text_add(t, "<figure class=\"plotbox\">\n<figcaption>");
    text_add_html(t, title);
    text_add(t, "</figcaption>\n");
    open_svg(t, id, (int)bottom + UNDER, title, description);
    text_add(t, "<g class=\"axis\">");
    for (double k = 0; k * x.step <= x.hi + 1e-9 * x.step; k++)
        text_add(t, "<path d=\"M%.1f %dV%.1f\"/><text x=\"%.1f\" y=\"%.1f\">%s</text>",
                 place(&x, k * x.step), TOP, bottom, place(&x, k * x.step), bottom + 17,
                 figure(k * x.step, x.decimals).s);
    for (int i = 0; i < n_cut; i++)
        text_add(t, "<path class=\"zero dashed\" d=\"M%.1f %dV%.1f\"/>", place(&x, cut[i]), TOP,
                 bottom);
    text_add(t, "</g>\n");
    for (int i = 0; i < n_row; i++) add_span_row(t, name[i], label[i], i, span, n_span, &x);
    snprintf(at, sizeof at, "class=\"m\" x=\"%.1f\" y=\"%.1f\"", (x.from + x.to) / 2, bottom + 35);
    add_label(t, at, x_label);
    text_add(t, "</svg>\n</figure>\n");
}
