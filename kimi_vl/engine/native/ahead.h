// What a thread will read next, fetched while it waits for others or computes: memory would have nothing to do then.

#ifndef KIMI_AHEAD_H
#define KIMI_AHEAD_H

#include <stdint.h>

#define STRETCHES 16
#define LINE 64 // bytes of a cache

// Stretches of memory in the order in which they will be read, and how far they have been fetched. All zero is nothing.
typedef struct {
    struct {
        const uint8_t *at, *end;
    } of[STRETCHES + 1]; // the last stays empty
    int now, count;
} ahead;

static inline void ahead_add(ahead *a, const uint8_t *from, int64_t bytes) {
    if (a->count == STRETCHES) return;
    a->of[a->count].at = from;
    a->of[a->count++].end = from + bytes;
}

// The first `read` stretches are being read, or have been.
static inline void ahead_of(ahead *a, int read) {
    if (a->now < read) a->now = read;
}

// Asks for the next line, if there is one.
static inline __attribute__((always_inline)) void ahead_fetch(ahead *a) {
    if (a->of[a->now].at < a->of[a->now].end) {
        __builtin_prefetch(a->of[a->now].at, 0, 2);
        a->of[a->now].at += LINE;
    } else if (a->now < a->count) {
        a->now++;
    }
}

#endif
