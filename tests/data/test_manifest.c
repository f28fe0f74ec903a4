/* test_manifest.c - the list of films, duplicates, splits and the imbalance. */
#include "base/random.h"
#include "data/duplicates.h"
#include "data/split.h"
#include "ref/make_image.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_manifest-%ld", (long)getpid());
    return dir_make(folder);
}

static int remove_folder(void **state)
{
    (void)state;
    return dir_remove(folder);
}

#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define HEADER "id,path,label,patient,split,sha256,width,height,source\n"

static Status read_text(Manifest *m, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/manifest.csv", folder);
    assert_int_equal(file_write(path, text, strlen(text)), OK);
    return manifest_read(m, path);
}

static void manifest_errors_name_the_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } bad[] = {
        {HEADER "a,a.png,n,P,train," HASH_A ",8,8,\nb,b.png,n,P,test," HASH_B ",8,8,\n",
         "manifest.csv:3: patient \"P\" is in test, but in train at line 2"},
        {HEADER "a,a.png,n,P,val," HASH_A ",8,8,\nb,b.png,n,Q,pool," HASH_A ",8,8,\n",
         "manifest.csv:3: film \"b\" is in pool, but the identical film \"a\" is in val at line 2"},
        {HEADER "a,a.png,n,P,train," HASH_A ",8,8,\na,b.png,n,Q,test," HASH_B ",8,8,\n",
         "manifest.csv:3: id \"a\" is already in line 2"},
        {HEADER "a,../a.png,n,P,train," HASH_A ",8,8,\n",
         "manifest.csv:2: path \"../a.png\" leads out"},
        {HEADER "a,x/../../a.png,n,P,train," HASH_A ",8,8,\n", ":2: path"},
        {HEADER "a,/etc/a.png,n,P,train," HASH_A ",8,8,\n", ":2: path"},
        {HEADER "a,a.png,n,P,train," HASH_A ",8,x,\n", "manifest.csv:2: height \"x\""},
        {HEADER "a,a.png,n,P,train," HASH_A ",0,8,\n", "manifest.csv:2: width \"0\""},
        {HEADER "a,a.png,n,P,Train," HASH_A ",8,8,\n", "manifest.csv:2: split \"Train\""},
        {HEADER "a,a.png,n,P,train,abc,8,8,\n", "manifest.csv:2: sha256"},
        {HEADER "a,a.png,n,,train," HASH_A ",8,8,\n", "manifest.csv:2: patient is empty"},
        {HEADER, "has no films"},
        {"id,path,lable,patient,split,sha256,width,height,source\n", "is \"lable\" meant?"},
        {HEADER "a,a.png,n,P\n", "manifest.csv:2: 4 fields, expected 9"},
    };
    for (int i = 0; i < (int)(sizeof bad / sizeof *bad); i++) {
        Manifest m;
        assert_int_equal(read_text(&m, bad[i].text), ERR_INPUT);
        if (!strstr(status_message(), bad[i].words))
            fail_msg("\"%s\" not in: %s", bad[i].words, status_message());
        assert_null(m.row);
    }
}

static void manifest_comes_back(void **state)
{
    (void)state;
    char path[128];
    Manifest m, r;
    snprintf(path, sizeof path, "%s/out.csv", folder);
    manifest_init(&m, path);
    for (int i = 0; i < 300; i++) {
        char id[32], film[48], patient[16], hash[HASH_TEXT];
        snprintf(id, sizeof id, "film-%d", i);
        snprintf(film, sizeof film, "images/film, \"%d\".png", i);
        snprintf(patient, sizeof patient, "P%d", i / 3);
        hash_bytes(hash, id, strlen(id));
        ManifestRow row = {.id = id,
                           .path = film,
                           .patient = patient,
                           .source = "a\nb",
                           .width = i + 1,
                           .height = 7,
                           .label_name = i % 5 == 0   ? "virus"
                                         : i % 5 == 1 ? "bacteria"
                                                      : "normal",
                           .split = (Split)(i / 3 % SPLIT_COUNT)};
        memcpy(row.sha256, hash, HASH_TEXT);
        manifest_add(&m, &row);
    }
    assert_int_equal(manifest_finish(&m), OK);
    assert_int_equal(manifest_write(&m), OK);
    assert_int_equal(manifest_read(&r, path), OK);
    assert_int_equal(r.n, m.n);
    assert_int_equal(r.n_label, 3);
    assert_string_equal(r.label[0], "bacteria");
    assert_int_equal(manifest_label(&r, "virus"), 2);
    assert_int_equal(manifest_label(&r, "Virus"), -1);
    for (int i = 0; i < m.n; i++) {
        const ManifestRow *a = &m.row[i], *b = &r.row[i];
        assert_string_equal(a->id, b->id);
        assert_string_equal(a->path, b->path);
        assert_string_equal(a->patient, b->patient);
        assert_string_equal(a->sha256, b->sha256);
        assert_string_equal(a->source, b->source);
        assert_true(a->label == b->label && a->split == b->split && a->width == b->width &&
                    a->height == b->height);
    }
    Count all = manifest_count(&r, -1, SPLIT_COUNT), virus = manifest_count(&r, 2, SPLIT_TRAIN);
    assert_int_equal(all.films, 300);
    assert_int_equal(all.patients, 100);
    int films = 0,
        patients = 0; /* train: patients 0, 4, ..., films 3p .. 3p+2; virus: films 0, 5, ... */
    for (int p = 0; p < 100; p += 4)
        for (int i = 3 * p; i < 3 * p + 3; i++)
            if (i % 5 == 0) films++, patients++;
    assert_int_equal(virus.films, films);
    assert_int_equal(virus.patients, patients);
    char *where = manifest_path(&r, &r.row[0]);
    assert_ptr_equal(strstr(where, folder), where);
    free(where);
    manifest_free(&m);
    manifest_free(&r);
}

/* ---- duplicates ----------------------------------------------------------------------- */

static void film_image(Image *im, Bytes b)
{
    assert_int_equal(image_decode(im, b.data, b.size, "film"), OK);
    free(b.data);
}

static void copies_are_found_and_others_not(void **state)
{
    (void)state;
    enum { H = 150, W = 170, N = 12 };
    unsigned char film[N][H * W], shifted[H * W];
    Fingerprint print[N + 3];
    const Fingerprint *all[N + 3];
    for (int i = 0; i < N + 3; i++) all[i] = &print[i];
    Image im;
    for (uint32_t i = 0; i < N; i++) {
        make_film(film[i], H, W, 40 + i);
        film_image(&im, make_png(film[i], H, W, 0, 8, 0));
        assert_int_equal(fingerprint_make(&print[i], &im), OK);
        image_free(&im);
    }
    for (int i = 0; i < H * W; i++) shifted[i] = film[5][i / W * W + (i % W ? i % W - 1 : 0)];
    film_image(&im, make_png(film[3], H, W, 0, 8, 1)); /* the same pixels in another file */
    assert_int_equal(fingerprint_make(&print[N], &im), OK);
    image_free(&im);
    film_image(&im, make_jpeg(film[4], H, W, 1, 95, 0));
    assert_int_equal(fingerprint_make(&print[N + 1], &im), OK);
    image_free(&im);
    film_image(&im, make_png(shifted, H, W, 0, 8, 0));
    assert_int_equal(fingerprint_make(&print[N + 2], &im), OK);
    image_free(&im);

    assert_string_equal(print[3].hash, print[N].hash);
    assert_string_not_equal(print[4].hash, print[N + 1].hash);
    NearPair *pair;
    int n;
    assert_int_equal(near_pairs(&pair, &n, all, N + 3), OK);
    assert_int_equal(n, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pair[i].a, 3 + i);
        assert_int_equal(pair[i].b, N + i);
        assert_true(pair[i].correlation > NEAR_CORRELATION && pair[i].correlation <= 1 + 1e-12);
    }
    assert_true(pair[0].bits == 0 && fabs(pair[0].correlation - 1) < 1e-12);
    free(pair);
    all[4] = NULL; /* left out before */
    assert_int_equal(near_pairs(&pair, &n, all, N + 3), OK);
    assert_int_equal(n, 2);
    free(pair);
}

static void sets_grow_together(void **state)
{
    (void)state;
    int *set = union_new(6);
    union_join(set, 4, 2);
    union_join(set, 5, 4);
    union_join(set, 0, 1);
    assert_int_equal(union_find(set, 5), 2);
    assert_int_equal(union_find(set, 1), 0);
    assert_int_equal(union_find(set, 3), 3);
    union_join(set, 1, 5);
    for (int i = 0; i < 6; i++) assert_int_equal(union_find(set, i), i == 3 ? 3 : 0);
    free(set);
}

/* ---- splits --------------------------------------------------------------------------- */

enum { FILMS = 5000, NORMAL = 1 };
static const char *const names[3] = {"bacteria", "normal", "virus"};

/* Patients with 1-12 films; a third normal, others with bacteria, virus or both. */
static SplitFilm *make_films(char (**patient)[16])
{
    SplitFilm *film = calloc(FILMS, sizeof *film);
    *patient = calloc(FILMS, sizeof **patient);
    RandomKey k = {.seed = 5, .stream = STREAM_TEST, .step = 1};
    for (uint32_t i = 0, p = 0; i < FILMS; p++) {
        uint32_t n = random_below(k, 3 * p, 100) < 80 ? 1 + random_below(k, 3 * p, 3) : 12;
        uint32_t kind = random_below(k, 3 * p + 1, 4);
        for (uint32_t j = 0; j < n && i < FILMS; j++, i++) {
            snprintf((*patient)[i], 16, "P%u", p);
            int disease = kind == 2 || (kind == 3 && j % 2) ? 2 : 0;
            film[i] = (SplitFilm){(*patient)[i], kind == 0 ? NORMAL : disease, SPLIT_COUNT, true};
        }
    }
    return film;
}

static void no_patient_in_two_splits(void **state)
{
    (void)state;
    char(*patient)[16];
    SplitFilm *film = make_films(&patient), *again = malloc(FILMS * sizeof *again);
    SplitShares share = {.train = 0.6, .val = 0.12, .pool = 0.18};
    const double want[SPLIT_COUNT] = {0.6, 0.12, 0.1, 0.18};
    split_by_patient(film, FILMS, share, 3);
    int n[3][SPLIT_COUNT] = {{0}}, all[3] = {0};
    for (int i = 0; i < FILMS; i++) {
        if (i && !strcmp(film[i].patient, film[i - 1].patient))
            assert_int_equal(film[i].split, film[i - 1].split);
        n[film[i].label][film[i].split]++;
        all[film[i].label]++;
    }
    for (int c = 0; c < 3; c++)
        for (int s = 0; s < SPLIT_COUNT;
             s++) /* a border is off by half a patient of each stratum at most */
            assert_true(fabs(n[c][s] - want[s] * all[c]) <= 2 * 12);

    /* The order of films does not matter, the seed does. */
    memcpy(again, film, FILMS * sizeof *again);
    for (uint32_t i = 0; i < FILMS; i++)
        again[random_permute((RandomKey){.seed = 1, .stream = STREAM_TEST}, i, FILMS)] = film[i];
    SplitFilm *other = malloc(FILMS * sizeof *other);
    memcpy(other, again, FILMS * sizeof *other);
    split_by_patient(again, FILMS, share, 3);
    split_by_patient(other, FILMS, share, 4);
    int moved = 0, differ = 0;
    for (uint32_t i = 0; i < FILMS; i++) {
        uint32_t at = random_permute((RandomKey){.seed = 1, .stream = STREAM_TEST}, i, FILMS);
        moved += again[at].split != film[i].split;
        differ += other[at].split != film[i].split;
    }
    assert_int_equal(moved, 0);
    assert_true(differ > FILMS / 4);
    free(other);
    free(again);
    free(film);
    free(patient);
}

static void imbalance_is_made_by_patients(void **state)
{
    (void)state;
    char(*patient)[16];
    SplitFilm *film = make_films(&patient);
    split_by_patient(film, FILMS, (SplitShares){.train = 0.6, .val = 0.2}, 3);
    assert_int_equal(split_imbalance(film, FILMS, NORMAL, 8, 3, names, 3), OK);
    int in[3][SPLIT_COUNT] = {{0}}, out[3][SPLIT_COUNT] = {{0}};
    for (int i = 0; i < FILMS; i++) {
        if (i && !strcmp(film[i].patient, film[i - 1].patient))
            assert_int_equal(film[i].left_out, film[i - 1].left_out);
        (film[i].left_out ? out : in)[film[i].label][film[i].split]++;
    }
    for (int s = 0; s < SPLIT_COUNT; s++)
        for (int c = 0; c < 3; c++) {
            if (c == NORMAL || s > SPLIT_VAL) assert_int_equal(out[c][s], 0);
            else {
                assert_true(out[c][s] > 0);
                assert_true(in[c][s] <= lrint(in[NORMAL][s] / 8.0));
                assert_true(in[c][s] >=
                            lrint(in[NORMAL][s] / 8.0) - 2); /* single films are plenty */
            }
        }
    assert_int_equal(split_imbalance(film, FILMS, NORMAL, 1e6, 3, names, 3), ERR_USAGE);
    assert_non_null(strstr(status_message(), "leaves no film of class \"bacteria\""));
    free(film);
    free(patient);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(manifest_errors_name_the_line),
        cmocka_unit_test(manifest_comes_back),
        cmocka_unit_test(copies_are_found_and_others_not),
        cmocka_unit_test(sets_grow_together),
        cmocka_unit_test(no_patient_in_two_splits),
        cmocka_unit_test(imbalance_is_made_by_patients),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
