/* arena.h - memory that dies together.
 *
 * Blocks never move, so pointers stay valid until arena_free(). Memory is zeroed.
 * Not thread-safe. Out of memory ends the program with a message: what lives here is small
 * (graph nodes, names, settings), and nothing useful can go on without it.
 */
#ifndef ARENA_H
#define ARENA_H
#include <stddef.h>

typedef struct ArenaBlock ArenaBlock;
typedef struct {
    ArenaBlock *last; /* owned */
} Arena;              /* starts as {0} */

void *arena_alloc(Arena *a, size_t size);  /* 16-byte aligned, zeroed */
char *arena_strdup(Arena *a, const char *s);
char *arena_printf(Arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void  arena_free(Arena *a);                /* empties it */
#endif
