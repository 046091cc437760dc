#include "picture.h"

#include <math.h>

#include "attention.h"

// Groups of queries that meet a block of keys while it lies in a core's first cache.
#define BESIDE (128 / QUERIES)

typedef struct {
    pool *p;
    const float *q;
    const uint16_t *k, *v;
    const int64_t *lengths;
    int64_t count, heads, dim, value_dim, longest;
    float *out;
    number *key, *value; // [longest, APART(dim)], [longest, value_dim]: one head, which all threads share
    number *queries;     // [threads, BESIDE]
    float *state_out;    // [threads, BESIDE, QUERIES, value_dim]
    float *row;          // [threads, value_dim]
} picture_job;

static void queries(const picture_job *j, int64_t start, int64_t length, int64_t h, int64_t first, int thread) {
    number *of_thread = j->queries + thread * BESIDE * QUERIES * j->dim;
    float *out = j->state_out + thread * BESIDE * QUERIES * j->value_dim, *row = j->row + thread * j->value_dim;
    attention states[BESIDE];
    int64_t width = j->heads * j->dim, apart = APART(j->dim);
    int groups = 0;
    for (; groups < BESIDE && first + groups * QUERIES < length; groups++) {
        const float *query[QUERIES];
        for (int l = 0; l < QUERIES; l++) {
            int64_t t = first + groups * QUERIES + l;
            query[l] = t < length ? j->q + (start + t) * width + h * j->dim : NULL;
        }
        number *mine = of_thread + groups * QUERIES * j->dim;
        queries_fill(mine, query, 1.0f / sqrtf((float)j->dim), (int)j->dim);
        states[groups] =
            attention_begin(mine, (int)j->dim, (int)j->value_dim, out + groups * QUERIES * j->value_dim);
    }
    for (int64_t k = 0; k < length; k += KEYS) {
        int some = length - k < KEYS ? (int)(length - k) : KEYS;
        for (int g = 0; g < groups; g++)
            attention_add(&states[g], j->key + k * apart, apart, j->value + k * j->value_dim, j->value_dim, some,
                          some, 0);
    }
    for (int64_t t = first; t < first + groups * QUERIES && t < length; t++) {
        attention_end(&states[(t - first) / QUERIES], 1, (int)((t - first) % QUERIES), row);
        memcpy(j->out + (start + t) * width + h * j->dim, row, sizeof(float) * (size_t)j->dim);
    }
}

static void work(void *context, int thread, int threads) {
    picture_job *j = context;
    int64_t start = 0, width = j->heads * j->dim;
    for (int64_t i = 0; i < j->count; i++) {
        int64_t length = j->lengths[i];
        for (int64_t h = 0; h < j->heads; h++) {
            share mine = share_of(length, thread, threads);
            for (int64_t t = mine.from; t < mine.to; t++) {
                int64_t at = (start + t) * width + h * j->dim;
                to_numbers(j->key + t * APART(j->dim), j->k + at, (int)j->dim);
                to_numbers(j->value + t * j->value_dim, j->v + at, (int)j->dim);
                for (int64_t d = j->dim; d < j->value_dim; d++) j->value[t * j->value_dim + d] = 0;
            }
            pool_barrier(j->p);
            int64_t pieces = (length + BESIDE * QUERIES - 1) / (BESIDE * QUERIES);
            for (int64_t piece = thread; piece < pieces; piece += threads)
                queries(j, start, length, h, piece * BESIDE * QUERIES, thread);
            pool_barrier(j->p);
        }
        start += length;
    }
}

void picture_attention(pool *p, const float *q, const uint16_t *k, const uint16_t *v, const int64_t *lengths,
                       int64_t count, int64_t heads, int64_t dim, float *out) {
    picture_job j = {.p = p, .q = q, .k = k, .v = v, .lengths = lengths, .count = count, .heads = heads, .dim = dim};
    j.out = out;
    j.value_dim = padded(dim, 16);
    for (int64_t i = 0; i < count; i++) j.longest = lengths[i] > j.longest ? lengths[i] : j.longest;
    room r = {0};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) r = (room){pool_room(p, r.used), 0};
        int64_t threads = pool_threads(p), floats = sizeof(float), numbers = sizeof(number);
        j.key = take(&r, j.longest * APART(dim) * numbers);
        j.value = take(&r, j.longest * j.value_dim * numbers);
        j.queries = take(&r, threads * BESIDE * queries_bytes((int)dim));
        j.state_out = take(&r, threads * BESIDE * QUERIES * j.value_dim * floats);
        j.row = take(&r, threads * j.value_dim * floats);
    }
    pool_run(p, work, &j);
}
