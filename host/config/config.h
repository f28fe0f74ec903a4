/* config.h - the settings of a run: from INI files and the command line to a struct and back.
 *
 * Config is plain data: copy it freely, nothing to free. cfg.ldm.learning_rate is the setting
 * learning_rate of section [ldm]; settings.h has the tables.
 *
 * Values reach it only through config_set() and config_read(): each is checked against its kind,
 * limits or allowed values. A wrong name is refused with the nearest right one. Errors are
 * ERR_USAGE and start with the origin ("demo.ini:12", "--set"); on failure *c is unchanged.
 *
 * INI files: "[section]", "name = value", comments from ';' or '#' at the start of a line or from
 * " ;" behind a value. One line per value, under 199 characters. Refused, each with its line:
 * a section or name that stands twice, indented lines, " #" behind a value, NUL bytes.
 *
 * Paths: a relative PATH setting means "from the folder of the INI file that it stands in", with
 * --set "from the working directory". It is made absolute as soon as it is read, by putting that
 * folder's real path in front of what the user wrote, which stays as it is. So the program may
 * open it from anywhere, and config.ini means the same wherever it is copied to.
 */
#ifndef CONFIG_H
#define CONFIG_H
#include "base/file.h"
#include "base/text.h"
#include "config/settings.h"

enum { CONFIG_TEXT = 256 };

#define CONFIG_FIELD_NUMBER_int(S, name, ...) int name;
#define CONFIG_FIELD_NUMBER_double(S, name, ...) double name;
#define CONFIG_FIELD_TEXT(S, name, ...) char name[CONFIG_TEXT];
#define CONFIG_STRUCT(section, Type, TABLE, meaning)                                               \
    typedef struct {                                                                               \
        TABLE(section, CONFIG_FIELD_NUMBER_int, CONFIG_FIELD_NUMBER_double, CONFIG_FIELD_TEXT,     \
              CONFIG_FIELD_TEXT)                                                                   \
    } Type;
CONFIG_SECTIONS(CONFIG_STRUCT) /* StudySettings, DataSettings, ... */
#undef CONFIG_STRUCT
#undef CONFIG_FIELD_TEXT
#undef CONFIG_FIELD_NUMBER_double
#undef CONFIG_FIELD_NUMBER_int

typedef struct {
#define CONFIG_SECTION(section, Type, TABLE, meaning) Type section;
    CONFIG_SECTIONS(CONFIG_SECTION)
#undef CONFIG_SECTION
} Config;

void config_default(Config *c);

/* name is "section.key". Relative paths are taken from the working directory. */
Status config_set(Config *c, const char *name, const char *value, const char *origin);
/* assignment is "section.key=value", what --set is given. */
Status config_assign(Config *c, const char *assignment, const char *origin);
/* Sets what stands in the file, leaves the rest. */
Status config_read(Config *c, const char *path);
/* The rules that tie settings together; the message names them and their values. */
Status config_check(const Config *c);

/* All settings with their meanings as an INI file that config_read() turns into the same Config,
 * bit for bit. */
Status config_write(const Config *c, OutFile *to);
/* "name = value" lines of a section, without paths: what a path leads to has a hash of its own,
 * and moving it changes no result. The section must exist. */
void config_section_text(const Config *c, const char *section, Text *t);
/* Every setting by section: default, range or allowed values, meaning. */
void config_help(FILE *to);

/* For the reader of INI files: one value, relative paths taken from folder. */
Status config_set_from(Config *c, const char *section, const char *key, const char *value,
                       const char *origin, const char *folder);
/* Fails for a section that does not exist, naming the nearest. */
Status config_need_section(const char *section, const char *origin);
#endif
