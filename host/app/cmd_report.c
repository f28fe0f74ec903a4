/* cmd_report.c - equipoise report: report.html of a finished run, made again. */
#include "app/commands.h"
#include "app/options.h"
#include "study/study.h"

static const Usage usage = {
    .command = "report",
    .arguments = "DIR",
    .least = 1,
    .most = 1,
    .help = "Makes DIR/report.html again from the files of a finished study.",
};

Status cmd_report(App *app, int argc, char **argv)
{
    Options o;
    TRY(options_parse(&o, &usage, argc, argv));
    return o.helped ? OK : study_report(o.argument[0], app->log);
}
