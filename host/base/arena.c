/* arena.c - a list of blocks, filled from the front. */
#include "base/arena.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1 << 16, ALIGNMENT = 16 };
struct ArenaBlock {
    ArenaBlock *before;
    size_t used, size;
    _Alignas(ALIGNMENT) char mem[];
};

void *arena_alloc(Arena *a, size_t size)
{
    size = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (!a->last || a->last->size - a->last->used < size) {
        size_t room = size > BLOCK ? size : BLOCK;
        ArenaBlock *b = malloc(sizeof *b + room);
        if (!b) {
            fprintf(stderr, "equipoise: no memory for a block of %zu bytes\n", room);
            exit(5);
        }
        *b = (ArenaBlock){.before = a->last, .size = room};
        a->last = b;
    }
    void *p = a->last->mem + a->last->used;
    a->last->used += size;
    return memset(p, 0, size);
}

char *arena_strdup(Arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(arena_alloc(a, n), s, n);
}

char *arena_printf(Arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = arena_alloc(a, (size_t)n + 1);
    vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}

void arena_free(Arena *a)
{
    for (ArenaBlock *b = a->last, *before; b; b = before) {
        before = b->before;
        free(b);
    }
    *a = (Arena){0};
}
