/* options.h - the command line of one command, declared as a table.
 *
 *   static const Option option[] = {
 *       {"threshold", "T", "positive where score >= T", "0.5"},
 *       {"grad", NULL, "run the backward pass too", NULL},
 *   };
 *   static const Usage usage = {.command = "evaluate", .help = "...", .option = option, .n_option = 2};
 *
 *   Options o;
 *   TRY(options_parse(&o, &usage, argc, argv));
 *   if (o.helped) return OK;
 *
 * Options are long ("--out DIR" or "--out=DIR") and may stand before or behind arguments; "--"
 * ends them. --help and -h are there by themselves. An unknown option is refused with the
 * nearest one, an empty value where the metavar is not TEXT; of an option given twice the last counts.
 * All failures of parsing are ERR_USAGE.
 */
#ifndef OPTIONS_H
#define OPTIONS_H
#include "config/config.h"

typedef struct {
    const char *name, *metavar; /* metavar NULL: a switch, takes no value */
    const char *help, *preset;  /* preset: the value when it is not given, or NULL */
} Option;

typedef struct {
    const char *command, *arguments, *help; /* arguments as in "FORMAT SOURCE"; NULL: none */
    int least, most;                        /* number of arguments */
    const Option *option;
    int n_option;
    bool takes_config; /* first argument is an INI file; adds --set; --help lists all settings */
} Usage;

enum { MOST_OPTIONS = 32, MOST_GIVEN = 256 };

typedef struct {
    const Usage *usage;
    char **argument; /* borrowed from argv: [n_argument] */
    int n_argument, n_given;
    bool helped; /* --help was given and answered on stdout */
    struct {
        const char *name, *value; /* value NULL: a switch */
    } given[MOST_GIVEN];
} Options;

Status options_parse(Options *o, const Usage *u, int argc, char **argv);

bool options_has(const Options *o, const char *name);         /* given by the user */
const char *options_text(const Options *o, const char *name); /* last given, preset or NULL */
const char *options_each(const Options *o, const char *name, int i); /* i-th given, or NULL */
Status options_need(const char **v, const Options *o,
                    const char *name); /* fails if there is none */
/* These take the preset where the user gave none, and fail outside least..most. */
Status options_int(int *v, const Options *o, const char *name, int least, int most);
Status options_real(double *v, const Options *o, const char *name, double least, double most);

/* The file that --name is to become, NULL where it is not given. Refused before any work: another end
 * than `end` (".png", capitals too; "": any), a file that is there without --force, one of the n that are
 * read (any of which may be NULL) even so, a place where no file can be written. */
Status options_out(const char **path, const Options *o, const char *name, const char *end, int n,
                   const char *const *input);

/* For takes_config: defaults, the file, every --set in order, config_check(). */
Status options_config(Config *c, const Options *o);
#endif
