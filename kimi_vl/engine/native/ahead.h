// What a thread will read next, fetched while it waits for others or computes: memory would have nothing to do then.

#ifndef KIMI_AHEAD_H
#define KIMI_AHEAD_H

#include <stdint.h>

#define STRETCHES 16
#define LINE 64 // bytes of a cache
#define LINES 4 // that are asked for at a time

typedef struct {
    const uint8_t *at, *end;
} stretch;

// Stretches of memory in the order in which they will be read, and how far they have been fetched. All zero is nothing.
typedef struct {
    stretch first;             // before all others
    stretch of[STRETCHES + 1]; // the last stays empty
    int now, count;
} ahead;

static inline void ahead_add(ahead *a, const uint8_t *from, int64_t bytes) {
    if (a->count < STRETCHES) a->of[a->count++] = (stretch){from, from + bytes};
}

// The first `read` stretches are being read, or have been.
static inline void ahead_of(ahead *a, int read) {
    if (a->now < read) a->now = read;
}

// Asks for the next lines, if there are any.
static inline __attribute__((always_inline)) void ahead_fetch(ahead *a) {
    stretch *s = a->first.at < a->first.end ? &a->first : &a->of[a->now];
    if (s->at < s->end) {
        for (int i = 0; i < LINES; i++) __builtin_prefetch(s->at + i * LINE, 0, 2);
        s->at += LINES * LINE;
    } else if (a->now < a->count) {
        a->now++;
    }
}

#endif
