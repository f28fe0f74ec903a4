/* library_absent.h - in place of a library's functions where its headers were not there. ABSENT:
 * the text that says so. */
#pragma once
static Status absent(void) { return FAIL(ERR_DEVICE, ABSENT); }
static Status plan(void **, size_t *, const Product *, int, void *) { return absent(); }
static Status run(void *, size_t, const Product *, void *, void *, void *) { return absent(); }
static void forget(void *) {}
static Status open(void **, void *) { return absent(); }
static void close(void *) {}
static Status version(size_t *) { return absent(); }
enum { MOST = 0 };
