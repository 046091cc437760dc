#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

// Within a step the next job comes sooner than these are over, some 50 microseconds; between requests the processor is
// set free.
#define SPINS 20000
// Who waits for another thread longer than this, some microseconds, may have its core, and offers it.
#define PATIENCE 500

struct pool {
    int threads;
    pthread_t *ids;
    job work;
    void *context;
    atomic_uint issued;  // jobs given out so far
    atomic_int busy;     // threads still at the current job
    atomic_uint waiting; // at the barrier
    atomic_uint passed;  // barriers so far
    atomic_int ending;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    char *memory;
    int64_t memory_bytes;
};

typedef struct {
    pool *of;
    int number;
} worker;

static inline void relax(int *spins) {
    if (++*spins > PATIENCE) sched_yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void *worker_main(void *argument) {
    worker self = *(worker *)argument;
    free(argument);
    pool *p = self.of;
    unsigned seen = 0;
    for (;;) {
        int spins = 0;
        while (atomic_load_explicit(&p->issued, memory_order_acquire) == seen) {
            if (spins < SPINS) {
                relax(&spins);
                continue;
            }
            pthread_mutex_lock(&p->lock);
            while (atomic_load(&p->issued) == seen) pthread_cond_wait(&p->wake, &p->lock);
            pthread_mutex_unlock(&p->lock);
        }
        seen++;
        if (atomic_load(&p->ending)) return NULL;
        p->work(p->context, self.number, p->threads);
        atomic_fetch_sub_explicit(&p->busy, 1, memory_order_release);
    }
}

static void issue(pool *p) {
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add_explicit(&p->issued, 1, memory_order_release);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

pool *pool_start(int threads) {
    pool *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->threads = 1;
    p->ids = calloc((size_t)threads, sizeof *p->ids);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    // With fewer threads than asked for, all works as well, only slower.
    for (int i = 1; p->ids && i < threads; i++) {
        worker *w = malloc(sizeof *w);
        if (!w) break;
        *w = (worker){p, i};
        if (pthread_create(&p->ids[i], NULL, worker_main, w)) {
            free(w);
            break;
        }
        p->threads++;
    }
    return p;
}

void pool_stop(pool *p) {
    atomic_store(&p->ending, 1);
    issue(p);
    for (int i = 1; i < p->threads; i++) pthread_join(p->ids[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p->memory);
    free(p->ids);
    free(p);
}

char *pool_room(pool *p, int64_t bytes) {
    if (bytes > p->memory_bytes) {
        free(p->memory);
        void *memory = NULL;
        p->memory_bytes = posix_memalign(&memory, 64, (size_t)bytes) ? 0 : bytes;
        p->memory = p->memory_bytes ? memory : NULL;
    }
    return p->memory;
}

void *take(room *r, int64_t bytes) {
    char *at = r->base ? r->base + r->used : NULL;
    r->used += (bytes + 63) / 64 * 64;
    return at;
}

int pool_threads(const pool *p) { return p->threads; }

void pool_run(pool *p, job work, void *context) {
    if (p->threads > 1) {
        p->work = work;
        p->context = context;
        atomic_store_explicit(&p->busy, p->threads - 1, memory_order_relaxed);
        issue(p);
    }
    work(context, 0, p->threads);
    int spins = 0;
    while (p->threads > 1 && atomic_load_explicit(&p->busy, memory_order_acquire)) relax(&spins);
}

void pool_barrier(pool *p, ahead *soon) {
    if (p->threads == 1) return;
    unsigned round = atomic_load_explicit(&p->passed, memory_order_acquire);
    if (atomic_fetch_add_explicit(&p->waiting, 1, memory_order_acq_rel) + 1 == (unsigned)p->threads) {
        atomic_store_explicit(&p->waiting, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&p->passed, 1, memory_order_release);
    } else {
        int spins = 0;
        while (atomic_load_explicit(&p->passed, memory_order_acquire) == round) {
            ahead_fetch(soon);
            relax(&spins);
        }
    }
}
