/* plot.h - plots as inline SVG: lines, differences with intervals, spans of time.
 *
 * Colours and line widths come from the page's style sheet (classes c0, c1, c2; see style.c), so
 * that plots follow light, dark and print. Series differ in dashes too, not in colour alone. Each
 * plot has a title and a description for those who cannot see it.
 */
#ifndef PLOT_H
#define PLOT_H
#include "base/text.h"

typedef enum { COLOR_BASELINE, COLOR_AUGMENTED, COLOR_MUTED } PlotColor;

typedef struct {
    const char *name; /* in the legend; NULL: not in it */
    const double *x,
        *y; /* [n]; a point that is not finite is skipped, the line goes on behind it */
    int n;
    PlotColor color;
    bool dashed, dots; /* dots: a mark on each point */
} Series;

typedef struct {
    const char *id; /* distinct in the page; letters, digits and '-' */
    const char *title, *description, *x_label, *y_label;
    bool unit; /* both axes from 0 to 1, square; else ranges are those of the data and x is whole */
    const Series *series;
    int n_series;
} Plot;

void plot_lines(Text *t, const Plot *p);

typedef struct {
    const char *name;
    double value, lo, hi; /* a row that is not finite says so */
    bool strong;          /* drawn filled */
} ForestRow;

typedef struct {
    int row;
    double from, to; /* on the axis */
    bool strong;     /* drawn in the first colour, else in the second */
} TimeSpan;

/* What went on when: bars on rows with names and, at the right of a row's last bar, labels; cut: where
 * time was left out. */
void plot_spans(Text *t, const char *id, const char *title, const char *description,
                const char *x_label, const char *const *name, const char *const *label, int n_row,
                const TimeSpan *span, int n_span, const double *cut, int n_cut);

/* Values with intervals around a line at 0, one row each. */
void plot_forest(Text *t, const char *id, const char *title, const char *description,
                 const char *x_label, const ForestRow *row, int n);
#endif
