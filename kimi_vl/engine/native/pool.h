// Threads that wait for work by spinning a little, then sleep. One job at a time; the caller works too.

#ifndef KIMI_POOL_H
#define KIMI_POOL_H

#include <stdint.h>

#include "ahead.h"

typedef struct pool pool;

// What one thread does of a job; `thread` is from 0 to `threads` - 1.
typedef void (*job)(void *context, int thread, int threads);

pool *pool_start(int threads);
void pool_stop(pool *p);
int pool_threads(const pool *p);
void pool_run(pool *p, job work, void *context);

// Within a job: all of its threads wait for one another. Who waits fetches what it will read after that.
void pool_barrier(pool *p, ahead *soon);

// Pieces of work that a job's threads take one by one: the number of the next, counted from 0 by *taken.
static inline int64_t next_piece(int64_t *taken) { return __atomic_fetch_add(taken, 1, __ATOMIC_RELAXED); }

// Memory for what a job keeps only while it runs. A job takes its pieces from a room without a base first, to learn
// how much it needs, and then again from one with it. Each piece begins on a cache line.
typedef struct {
    char *base;
    int64_t used;
} room;

// At least so many bytes, or NULL if there is no such memory.
char *pool_room(pool *p, int64_t bytes);
void *take(room *r, int64_t bytes);

// [from, to) is thread's share of count things.
typedef struct {
    int64_t from, to;
} share;

static inline share share_of(int64_t count, int thread, int threads) {
    return (share){count * thread / threads, count * (thread + 1) / threads};
}

static inline int64_t padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

#endif
