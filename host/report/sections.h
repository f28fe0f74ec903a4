/* sections.h - the sections of the report, in the order of the page (report.c). Each adds the
 * inside of its <section>, headings of the third level and below, to t.
 */
#ifndef SECTIONS_H
#define SECTIONS_H
#include "report/run.h"

typedef Status SectionWriter(Text *t, const Run *r);

SectionWriter section_summary;   /* summary.c */
SectionWriter section_methods;   /* methods.c */
SectionWriter section_metrics;   /* table.c   */
SectionWriter section_curves;    /* curves.c  */
SectionWriter section_confusion; /* table.c   */
SectionWriter section_training;  /* training.c */
SectionWriter section_films;     /* grid.c    */
SectionWriter section_quality;   /* quality_page.c */
SectionWriter section_limits;    /* limits.c  */
SectionWriter section_timeline;  /* timeline.c */
SectionWriter section_reproduce; /* reproduce.c */

extern const char *const arm_title[ARM_COUNT]; /* "real films only", "with synthetic films" */
extern const char *const page_style_screen, *const page_style_paper; /* style.c */

/* Bits of several sections. */
bool test_patients_repeat(const Run *r); /* some patient has several test films */
bool starts_from_weights(const Run *r);  /* of a base model or a trunk          */
bool validates_on_synthetic(const Run *r);
void words_join(Text *t, const char *word, int i, int n); /* item i of n: "a, b and c" */
#endif
