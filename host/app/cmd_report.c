/* cmd_report.c - equipoise report: report.html of a finished run, made again, or its films as one
 * picture.
 */
#include "app/commands.h"
#include "app/options.h"
#include "report/report.h"
#include "study/study.h"

static const Option option[] = {
    {"grid", "FILE.png", "write the source, synthetic and real films as one picture instead", NULL},
    {"force", NULL, "replace FILE.png", NULL},
};
static const Usage usage = {
    .command = "report",
    .arguments = "DIR",
    .least = 1,
    .most = 1,
    .help = "Makes DIR/report.html again from the files of a finished study.",
    .option = option,
    .n_option = sizeof option / sizeof *option,
};

Status cmd_report(App *app, int argc, char **argv)
{
    Options o;
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    const char *grid;
    TRY(options_out(&grid, &o, "grid", ".png", 0, NULL));
    if (!grid && options_has(&o, "force"))
        return FAIL(ERR_USAGE, "report: found --force without --grid, expected both: report.html "
                               "is always replaced");
    if (!grid) return study_report(o.argument[0], app->log);
    TRY(report_grid_png(o.argument[0], grid));
    log_info(app->log, "%s", grid);
    return OK;
}
