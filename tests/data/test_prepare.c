/* test_prepare.c - from source folders and tables to a data set, and all that is refused. */
#include "base/csv.h"
#include "data/prepare.h"
#include "ref/make_image.h"
#include <omp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64];

static Arena paths; /* of at(), until the end */

static const char *at(const char *name) { return arena_printf(&paths, "%s/%s", root, name); }

static int make_folder(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/test_prepare-%ld", (long)getpid());
    return dir_make(root);
}

static int remove_folder(void **state)
{
    (void)state;
    arena_free(&paths);
    return dir_remove(root);
}

static void put(const char *name, uint32_t number) { write_film(at(name), 40, 48, number); }

static void put_text(const char *name, const char *text)
{
    assert_int_equal(file_write(at(name), text, strlen(text)), OK);
}

static void copy(const char *from, const char *to)
{
    char *data;
    size_t size;
    assert_int_equal(file_read(&data, &size, at(from), 1 << 24), OK);
    assert_int_equal(file_write(at(to), data, size), OK);
    free(data);
}

static PrepareOptions options(const char *format, const char *source, const char *out)
{
    return (PrepareOptions){.source = {.format = format, .source = source},
                            .out = out,
                            .normal = "normal",
                            .size = 32,
                            .share = {.train = 0.6, .val = 0.2},
                            .seed = 1};
}

static Status run(const PrepareOptions *o)
{
    Log *log = log_new(true);
    Status s = prepare_run(o, log);
    log_free(log);
    return s;
}

static void must(const PrepareOptions *o)
{
    if (run(o)) fail_msg("%s", status_message());
}

static void must_refuse(const PrepareOptions *o, Status code, const char *words)
{
    char partial[400];
    Status s = run(o);
    if (s != code || !strstr(status_message(), words))
        fail_msg("status %d, expected %d with \"%s\": %s", s, code, words, status_message());
    snprintf(partial, sizeof partial, "%s.partial", o->out);
    assert_false(file_exists(partial));
}

/* 40 normal patients, 24 with pneumonia, in the published layout; every third person has films of
 * both kinds and in both folders. Numbers of films are unique but for the copies below. */
static void make_kermany(const char *folder)
{
    char name[200];
    for (uint32_t i = 0; i < 40; i++) {
        const char *split = i % 4 ? "train" : "test", *series = i % 2 ? "IM" : "NORMAL2-IM";
        snprintf(name, sizeof name, "%s/%s/NORMAL/%s-%04u-0001.jpeg", folder, split, series,
                 100 + i / 2);
        put(name, i);
        snprintf(name, sizeof name, "%s/%s/NORMAL/%s-%04u-0001-0002.jpeg", folder, split, series,
                 100 + i / 2);
        if (i % 5 == 0) put(name, 100 + i);
    }
    for (uint32_t i = 0; i < 24; i++) {
        snprintf(name, sizeof name, "%s/train/PNEUMONIA/person%u_%s_%u.jpeg", folder, i,
                 i % 2 ? "virus" : "bacteria", 1000 + i);
        put(name, 200 + i);
        snprintf(name, sizeof name, "%s/test/PNEUMONIA/person%u_%s_%u.jpeg", folder, i,
                 i % 2 ? "bacteria" : "virus", 2000 + i);
        if (i % 3 == 0) put(name, 300 + i);
    }
    snprintf(name, sizeof name, "%s/test/PNEUMONIA/.DS_Store", folder);
    put_text(name, "hidden");
    snprintf(name, sizeof name, "%s/README.txt", folder);
    put_text(name, "not a film");
}

static const ManifestRow *row_of(const Manifest *m, const char *id)
{
    for (int i = 0; i < m->n; i++)
        if (!strcmp(m->row[i].id, id)) return &m->row[i];
    fail_msg("no film %s", id);
    return NULL;
}

static bool is_left_out(const Csv *c, const char *path, const char *reason)
{
    for (int i = 0; i < c->n_row; i++)
        if (!strcmp(csv_at(c, i, 0), path)) return strstr(csv_at(c, i, 3), reason) != NULL;
    return false;
}

static void check_films(const Manifest *m, int size)
{
    for (int i = 0; i < m->n; i++) {
        Image im;
        char *path = manifest_path(m, &m->row[i]), hash[HASH_TEXT];
        if (image_read(&im, path)) fail_msg("%s", status_message());
        assert_true(im.h == size && im.w == size && im.bits == 8 && im.channels == 1 && !im.n_text);
        for (int x = 0; x < size; x++) assert_true(im.pixel[x] == 0); /* 48 x 40: black above */
        assert_int_equal(hash_file(hash, path), OK);
        assert_string_equal(hash, m->row[i].sha256);
        image_free(&im);
        free(path);
    }
}

static void kermany_end_to_end(void **state)
{
    (void)state;
    Manifest m;
    Csv out;
    make_kermany("kermany");
    copy("kermany/train/PNEUMONIA/person4_bacteria_1004.jpeg",
         "kermany/test/PNEUMONIA/person77_bacteria_9.jpeg");
    copy("kermany/train/PNEUMONIA/person5_virus_1005.jpeg",
         "kermany/test/PNEUMONIA/person78_bacteria_9.jpeg");
    put_text("k1.partial/images/old.png", "of somebody else");
    PrepareOptions o = options("kermany", at("kermany"), at("k1"));
    assert_int_equal(run(&o), ERR_USAGE);
    assert_non_null(strstr(status_message(), "not of an unfinished prepare"));
    assert_true(file_exists(at("k1.partial/images/old.png")));
    put_text("k1.partial/.unfinished", ""); /* of a run that was killed */
    must(&o);
    assert_false(file_exists(at("k1/.unfinished")));
    assert_false(file_exists(at("k1.partial")) || file_exists(at("k1/images/old.png")));
    assert_int_equal(manifest_read(&m, at("k1/manifest.csv")), OK);
    assert_int_equal(m.n_label, 3);
    /* 40 + 8 normal, 24 + 8 diseased, 2 copies: one is dropped, two contradict each other */
    assert_int_equal(m.n, 40 + 8 + 24 + 8 - 1);
    check_films(&m, 32);

    const ManifestRow *r = row_of(&m, "NORMAL2-IM-0105-0001");
    assert_string_equal(r->patient, "NORMAL2-IM-0105");
    assert_string_equal(r->label_name, "normal");
    assert_string_equal(row_of(&m, "IM-0105-0001")->patient, "IM-0105");
    r = row_of(&m, "person6_bacteria_1006");
    assert_string_equal(r->patient, "person6");
    assert_string_equal(r->label_name, "bacteria");
    assert_string_equal(r->source, "train/PNEUMONIA/person6_bacteria_1006.jpeg");
    const ManifestRow *other = row_of(&m, "person6_virus_2006");
    assert_string_equal(other->label_name, "virus");
    assert_int_equal(other->split, r->split); /* though published in two folders */
    int within = 0;
    for (int s = 0; s < SPLIT_COUNT; s++) within += manifest_count(&m, -1, (Split)s).patients;
    assert_int_equal(within, manifest_count(&m, -1, SPLIT_COUNT).patients);

    assert_int_equal(csv_read(&out, at("k1/left_out.csv")), OK);
    assert_int_equal(out.n_row, 3);
    assert_true(is_left_out(&out, "train/PNEUMONIA/person4_bacteria_1004.jpeg",
                            "identical to test/PNEUMONIA/person77"));
    assert_string_equal(row_of(&m, "person77_bacteria_9")->patient,
                        "person4"); /* the two are one */
    assert_true(is_left_out(&out, "train/PNEUMONIA/person5_virus_1005.jpeg", "different classes"));
    assert_true(is_left_out(&out, "test/PNEUMONIA/person78_bacteria_9.jpeg", "different classes"));
    csv_free(&out);
    manifest_free(&m);
}

static void same_bytes_whatever_the_threads(void **state)
{
    (void)state;
    static const char *const file[] = {"manifest.csv", "left_out.csv", "near_duplicates.csv"};
    for (int k = 0; k < 2; k++) {
        PrepareOptions o = options("kermany", at("kermany"), at(k ? "t7" : "t1"));
        int before = omp_get_max_threads();
        o.train_ratio = 3;
        omp_set_num_threads(k ? 7 : 1);
        must(&o);
        omp_set_num_threads(before);
    }
    for (int i = 0; i < 3; i++) {
        char a[HASH_TEXT], b[HASH_TEXT], name[64];
        snprintf(name, sizeof name, "t1/%s", file[i]);
        assert_int_equal(hash_file(a, at(name)), OK);
        name[1] = '7';
        assert_int_equal(hash_file(b, at(name)), OK);
        assert_string_equal(a, b);
    }
    Manifest m;
    assert_int_equal(manifest_read(&m, at("t7/manifest.csv")), OK);
    for (int c = 0; c < 3; c += 2)
        for (Split s = SPLIT_TRAIN; s <= SPLIT_VAL; s++) {
            int normals = manifest_count(&m, 1, s).films, films = manifest_count(&m, c, s).films;
            assert_true(films >= 1 && 3 * films <= normals + 1);
        }
    manifest_free(&m);
}

/* Re-encoded copies under other patients' names: kept within a split, dropped across. */
static void near_duplicates_do_not_cross(void **state)
{
    (void)state;
    char name[64], other[64], table[4096] = "path,label,patient,split\n";
    for (uint32_t i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "near/%u.png", i);
        put(name, 400 + i);
        size_t n = strlen(table);
        snprintf(table + n, sizeof table - n, "%u.png,%s,P%u,%s\n", i, i % 2 ? "ill" : "well", i,
                 i < 6 ? "train" : "test");
        if (i >= 3) continue;
        snprintf(other, sizeof other, "near/%u.jpg", i);
        put(other, 400 + i);
        n = strlen(table);
        snprintf(table + n, sizeof table - n, "%u.jpg,%s,Q%u,%s\n", i, i % 2 ? "ill" : "well", i,
                 i == 0   ? "train"
                 : i == 1 ? "test"
                          : "val");
    }
    put_text("near/films.csv", table);
    PrepareOptions o = options("csv", at("near/films.csv"), at("near_out"));
    must(&o);
    Csv c;
    assert_int_equal(csv_read(&c, at("near_out/near_duplicates.csv")), OK);
    assert_int_equal(c.n_row, 3);
    csv_free(&c);
    assert_int_equal(csv_read(&c, at("near_out/left_out.csv")), OK);
    assert_int_equal(c.n_row, 2);
    assert_true(is_left_out(&c, "1.png", "near duplicate of 1.jpg in test"));
    assert_true(is_left_out(&c, "2.png", "near duplicate of 2.jpg in val"));
    csv_free(&c);
}

static void given_splits_must_not_overlap(void **state)
{
    (void)state;
    PrepareOptions o = options("kermany", at("kermany"), at("no"));
    o.source.keep_split = true;
    must_refuse(&o, ERR_INPUT, "expected each patient in one split");
    put("two/a.png", 1);
    put("two/b.png", 2);
    put("two/c.png", 3);
    put_text("two/t.csv",
             "path,label,patient,split\na.png,x,P,train\nb.png,y,Q,val\nc.png,x,P,test\n");
    o = options("csv", at("two/t.csv"), at("no"));
    must_refuse(&o, ERR_INPUT, "t.csv:4: patient \"P\" is in test, but in train at line 2");
    copy("two/a.png", "two/c.png"); /* the same film under another name */
    put_text("two/t.csv",
             "path,label,patient,split\na.png,x,P,train\nb.png,y,Q,val\nc.png,x,R,test\n");
    must_refuse(&o, ERR_INPUT, "patients who share an identical film count as one");
    assert_false(file_exists(at("no")));
}

static void all_bad_files_are_told_before_writing(void **state)
{
    (void)state;
    make_kermany("bad");
    char *data;
    size_t size;
    assert_int_equal(file_read(&data, &size, at("bad/train/NORMAL/IM-0101-0001.jpeg"), 1 << 20),
                     OK);
    assert_int_equal(file_write(at("bad/train/NORMAL/IM-0101-0001.jpeg"), data, size / 2), OK);
    free(data);
    PrepareOptions o = options("kermany", at("bad"), at("no"));
    must_refuse(&o, ERR_INPUT, "IM-0101-0001.jpeg: byte ");
    assert_non_null(strstr(status_message(), "truncated"));
    put_text("bad/train/NORMAL/notes.txt", "in a class folder");
    put_text("bad/test/PNEUMONIA/person1_fungus_3.jpeg", "");
    must_refuse(&o, ERR_INPUT, "3 of 82 films cannot be used");
    assert_false(file_exists(at("no")));
}

static void single_films_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *row, *words;
    } bad[] = {
        {"none.png,x,A", "t.csv:4: "},
        {"none.png,x,A", "none.png: cannot open it"},
        {"../two/a.png,x,A", "leads out of"},
        {"/etc/hostname,x,A", "is absolute"},
        {"link.png,x,A", "leads out of"},
        {"pipe.png,x,A", "expected a regular file"},
        {"folder.png,x,A", "is a directory"},
        {"tiny.png,x,A", "9 x 12 pixels, expected at least 16 x 16"},
        {"flat.png,x,A", "all pixels are equal"},
        {"synthetic.png,x,A", "is marked as synthetic"},
        {"a.png,x,", "t.csv:4: patient is empty"},
        {"a.png,=x,A", "class \"=x\""},
    };
    float flat[400] = {0}, film[400];
    for (int i = 0; i < 400; i++) film[i] = (float)(i * 7 % 400) / 400;
    put("one/a.png", 1);
    put("one/b.png", 2);
    write_film(at("one/tiny.png"), 12, 9, 3);
    assert_int_equal(symlink(at("two/b.png"), at("one/link.png")), 0);
    assert_int_equal(mkfifo(at("one/pipe.png"), 0600), 0);
    assert_int_equal(dir_make(at("one/folder.png")), OK);
    assert_int_equal(image_write_png(at("one/flat.png"), flat, 20, 20, NULL, 0), OK);
    const ImageText mark = {(char *)"Synthetic", (char *)"yes"};
    assert_int_equal(image_write_png(at("one/synthetic.png"), film, 20, 20, &mark, 1), OK);
    PrepareOptions o = options("csv", at("one/t.csv"), at("one_out"));
    for (int i = 0; i < (int)(sizeof bad / sizeof *bad); i++) {
        char table[256];
        snprintf(table, sizeof table, "path,label,patient\na.png,x,P\nb.png,y,Q\n%s\n", bad[i].row);
        put_text("one/t.csv", table);
        must_refuse(&o, ERR_INPUT, bad[i].words);
    }
    put_text("one/t.csv", "path,label,patient\na.png,x,P\nb.png,y,Q\nsynthetic.png,x,A\n");
    o.source.allow_synthetic = true;
    must(&o);
    must_refuse(&o, ERR_USAGE, "is there and not empty");
}

static void classes_that_look_like_slips(void **state)
{
    (void)state;
    char table[4096] = "path,label,patient\n";
    for (uint32_t i = 0; i < 45; i++) {
        char name[32];
        snprintf(name, sizeof name, "slip/%u.png", i);
        put(name, i);
        size_t n = strlen(table);
        snprintf(table + n, sizeof table - n, "%u.png,%s,P%u\n", i,
                 i == 41 ? "pnuemonia"
                 : i % 2 ? "pneumonia"
                         : "normal",
                 i);
    }
    PrepareOptions o = options("csv", at("slip/t.csv"), at("no"));
    put_text("slip/t.csv", table);
    must_refuse(&o, ERR_INPUT, "t.csv:43: class \"pnuemonia\" has 1 films and \"pneumonia\" 21");
    o.source.classes = "normal,pneumonia";
    must_refuse(&o, ERR_INPUT,
                "t.csv:43: class \"pnuemonia\" (is \"pneumonia\" meant?), expected one of normal");
    o.source.classes = "normal,pneumonia,pnuemonia";
    must(&o);
    o = options("csv", at("slip/t.csv"), at("named"));
    o.source.intended[1] = "pneumonia";
    must_refuse(&o, ERR_INPUT, "t.csv:43: class \"pnuemonia\" has 1 films");
    o.source.intended[2] = "pnuemonia";
    must(&o);
    o = options("csv", at("slip/u.csv"), at("no2"));
    put_text("slip/u.csv", "path,label,patient\n1.png,Normal,P\n2.png,normal,Q\n3.png,ill,R\n");
    must_refuse(&o, ERR_INPUT, "\"Normal\" has 1 films and \"normal\" 1");
    put_text("slip/u.csv", "path,label,patient\n1.png,ill,P\n2.png,ill,Q\n");
    must_refuse(&o, ERR_INPUT, "all films are of class \"ill\"");
    put_text("slip/u.csv", "path,lable,patient\n1.png,ill,P\n");
    must_refuse(&o, ERR_INPUT, "u.csv:1: no column \"label\", is \"lable\" meant?");
    put_text("slip/u.csv", "path,label,patient,id\n1.png,ill,P,a\n2.png,well,Q,a\n");
    must_refuse(&o, ERR_INPUT, "id \"a\" is also in line 2");
}

static void folders_take_patients_from_names(void **state)
{
    (void)state;
    Manifest m;
    for (uint32_t i = 0; i < 20; i++) {
        char name[64];
        snprintf(name, sizeof name, "folders/%s/pat%u scan.%u.png", i % 2 ? "ill" : "well", i / 4,
                 i);
        put(name, i);
    }
    copy("folders/ill/pat0 scan.1.png", "folders/README.png"); /* beside the classes: no film */
    put("folders/well/pat0 scan.1.png", 77);                   /* the same name in another class */
    PrepareOptions o = options("folders", at("folders"), at("f1"));
    o.source.patient_regex = "^(pat\\d+) ";
    must(&o);
    assert_int_equal(manifest_read(&m, at("f1/manifest.csv")), OK);
    assert_int_equal(m.n, 21);
    assert_int_equal(manifest_count(&m, -1, SPLIT_COUNT).patients, 5);
    assert_string_equal(row_of(&m, "well_pat0_scan.1")->label_name, "well");
    assert_string_equal(row_of(&m, "ill_pat0_scan.1")->label_name, "ill");
    assert_string_equal(row_of(&m, "pat1_scan.5")->patient, "pat1");
    manifest_free(&m);
    o = options("folders", at("folders"), at("f2"));
    must(&o);
    assert_int_equal(manifest_read(&m, at("f2/manifest.csv")), OK);
    assert_int_equal(manifest_count(&m, -1, SPLIT_COUNT).patients, 20); /* two share a name: one */
    manifest_free(&m);
    o = options("folders", at("folders"), at("no3"));
    o.source.patient_regex = "^(pat[";
    must_refuse(&o, ERR_USAGE, "--patient-regex: character ");
    o.source.patient_regex = "^pat";
    must_refuse(&o, ERR_USAGE, "has 0 groups, expected 1");
    o.source.patient_regex = "^(x)";
    must_refuse(&o, ERR_INPUT, "name does not match");
    o.source.patient_regex = NULL;
    o.source.keep_split = true;
    must_refuse(&o, ERR_INPUT, "expected <split>/<class>/<file>");
}

static void full_disk_leaves_nothing(void **state)
{
    (void)state;
    struct rlimit before, small;
    PrepareOptions o = options("kermany", at("kermany"), at("full"));
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 200; /* less than a film takes */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    Status s = run(&o);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(s, ERR_SPACE);
    assert_false(file_exists(at("full")));
    assert_false(file_exists(at("full.partial")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kermany_end_to_end),
        cmocka_unit_test(same_bytes_whatever_the_threads),
        cmocka_unit_test(near_duplicates_do_not_cross),
        cmocka_unit_test(given_splits_must_not_overlap),
        cmocka_unit_test(all_bad_files_are_told_before_writing),
        cmocka_unit_test(single_films_are_refused),
        cmocka_unit_test(classes_that_look_like_slips),
        cmocka_unit_test(folders_take_patients_from_names),
        cmocka_unit_test(full_disk_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
