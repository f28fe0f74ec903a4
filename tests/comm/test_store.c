/* test_store.c - the store as a rank sees it that breaks its rules, or that hangs at its end: the
 * job ends with a line, and the store can be closed.
 */
#include "comm/store.h"
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    Store *store;
    Wire rank[2];
    int port;
} Job;

/* The next frame that is no beat; its text or data goes to text. */
static Frame next(Wire *w, char *text, size_t room)
{
    Frame f;
    const char *data;
    for (double end = wire_now() + 20; wire_now() < end;) {
        int got = wire_take(w, &f, &data);
        assert_true(got >= 0);
        if (got && f.kind == FRAME_BEAT) continue;
        if (got) {
            assert_true(f.bytes < room);
            memcpy(text, data, f.bytes);
            text[f.bytes] = 0;
            return f;
        }
        poll(&(struct pollfd){w->fd, POLLIN, 0}, 1, 100);
        wire_read(w);
    }
    fail_msg("the store says nothing for 20 s");
    return f;
}

static void say(Wire *w, Frame f, const char *data)
{
    wire_put(w, &f, data);
    assert_true(wire_flush(w));
}

/* Both ranks of a world of two have come. */
static Job begin(int seconds)
{
    Job j = {0};
    int fd;
    char token[HASH_TEXT], none[8];
    hash_bytes(token, "test", 4);
    assert_int_equal(store_open(&j.store, 2, seconds, &j.port, token, &fd), OK);
    for (int r = 0; r < 2; r++) {
        Hello own = hello_of(token, r, 2), stores;
        j.rank[r] = (Wire){.fd = r ? wire_dial("127.0.0.1", j.port, 5) : fd};
        assert_true(j.rank[r].fd >= 0);
        wire_put_hello(&j.rank[r], &own);
        assert_true(wire_flush(&j.rank[r]));
        for (int got = 0; !got;) {
            poll(&(struct pollfd){j.rank[r].fd, POLLIN, 0}, 1, 20000);
            assert_true(wire_read(&j.rank[r]));
            got = wire_take_hello(&j.rank[r], &stores);
            assert_true(got >= 0);
        }
        assert_true(hello_fits(&stores, token));
    }
    for (int r = 0; r < 2; r++)
        assert_int_equal(next(&j.rank[r], none, sizeof none).kind, FRAME_WELCOME);
    return j;
}

/* Both hear that the job failed, with these words; the store closes. */
static void ends_with(Job *j, const char *words)
{
    char text[2048];
    for (int r = 0; r < 2; r++) {
        if (j->rank[r].fd < 0) continue;
        assert_int_equal(next(&j->rank[r], text, sizeof text).kind, FRAME_FAILED);
        if (!strstr(text, words)) fail_msg("says \"%s\", expected \"%s\"", text, words);
    }
    for (int r = 0; r < 2; r++) wire_close(&j->rank[r]);
    store_close(j->store);
}

static const Frame barrier = {.kind = FRAME_CALL, .op = OP_BARRIER, .what = "step"};

static void calls_that_break_the_rules(void **state)
{
    (void)state;
    Frame bad[8];
    for (int i = 0; i < 8; i++) bad[i] = barrier;
    bad[0].group = 7;
    bad[1].seq = 1;
    bad[2].root = 2;
    bad[3].root = -1;
    bad[4].size = 1; /* without the byte */
    bad[5].bytes = 1;
    bad[6].op = OP_ALL_REDUCE;
    bad[6].bytes = 1; /* the store does not carry it */
    bad[7].op = OP_SPLIT;
    bad[7].size = bad[7].bytes = 3;
    for (int i = 0; i < 8; i++) {
        Job j = begin(20);
        say(&j.rank[1], bad[i], "abc");
        ends_with(&j, "breaks the rules of the store");
    }
}

static void bytes_that_are_no_frames(void **state)
{
    (void)state;
    Frame bad[4];
    for (int i = 0; i < 4; i++) bad[i] = barrier;
    bad[0].kind = N_FRAMES;
    bad[1].op = N_OPS;
    bad[2].bytes = (uint64_t)FRAME_MOST + 1;
    memset(bad[3].what, 'x', sizeof bad[3].what);
    for (int i = 0; i < 4; i++) {
        Job j = begin(20);
        bad[i].bytes = i == 2 ? bad[i].bytes : 0;
        Frame f = bad[i];
        f.bytes = 0; /* what wire_put() copies */
        wire_put(&j.rank[1], &f, NULL);
        memcpy(j.rank[1].out.at + j.rank[1].out.end - sizeof f, &bad[i], sizeof f);
        assert_true(wire_flush(&j.rank[1]));
        wire_close(&j.rank[1]);
        ends_with(&j, "rank 1 on host");
    }
}

/* Half a frame, then nothing more. */
static void torn_frame(void **state)
{
    (void)state;
    Job j = begin(20);
    wire_put(&j.rank[1], &barrier, NULL);
    j.rank[1].out.end -= 5;
    assert_true(wire_flush(&j.rank[1]));
    wire_close(&j.rank[1]);
    ends_with(&j, "died");
}

/* A call that comes, a rank that stays away from it, and one that does not take its leave. */
static void late_at_a_call_and_at_the_end(void **state)
{
    (void)state;
    char none[8];
    Job j = begin(3);
    say(&j.rank[0], barrier, NULL);
    ends_with(&j, "did not reach barrier \"step\", in which others have waited for 3 s");

    j = begin(3);
    for (int r = 0; r < 2; r++) say(&j.rank[r], barrier, NULL);
    for (int r = 0; r < 2; r++)
        assert_int_equal(next(&j.rank[r], none, sizeof none).kind, FRAME_REPLY);
    say(&j.rank[0], (Frame){.kind = FRAME_BYE}, NULL);
    Wire one = j.rank[1];
    wire_close(&j.rank[0]);
    store_close(j.store);
    char text[2048];
    assert_int_equal(next(&one, text, sizeof text).kind, FRAME_FAILED);
    assert_non_null(strstr(text, "rank 1 on host"));
    assert_non_null(strstr(text, "did not end within 3 s after the others"));
    wire_close(&one);
}

/* A rank of another job that dials this port gets no answer, not even where its number is free. */
static void another_jobs_rank(void **state)
{
    (void)state;
    char token[HASH_TEXT], none[8];
    Job j = begin(20);
    hash_bytes(token, "other", 5);
    Hello own = hello_of(token, 1, 2);
    Wire w = {.fd = wire_dial("127.0.0.1", j.port, 5)};
    wire_put_hello(&w, &own);
    assert_true(wire_flush(&w));
    poll(&(struct pollfd){w.fd, POLLIN, 0}, 1, 20000);
    assert_false(wire_read(&w)); /* closed */
    assert_true(w.in.begin == w.in.end);
    wire_close(&w);
    for (int r = 0; r < 2; r++) say(&j.rank[r], barrier, NULL);
    for (int r = 0; r < 2; r++)
        assert_int_equal(next(&j.rank[r], none, sizeof none).kind, FRAME_REPLY);
    for (int r = 0; r < 2; r++) say(&j.rank[r], (Frame){.kind = FRAME_BYE}, NULL);
    store_close(j.store);
    for (int r = 0; r < 2; r++) wire_close(&j.rank[r]);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_that_break_the_rules),
        cmocka_unit_test(bytes_that_are_no_frames),
        cmocka_unit_test(torn_frame),
        cmocka_unit_test(another_jobs_rank),
        cmocka_unit_test(late_at_a_call_and_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
