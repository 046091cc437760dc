#include "picture.h"

#include <math.h>

#include "attention.h"

// Groups of queries that meet a block of keys while it lies in a core's first cache.
#define TOGETHER (128 / LANES)

typedef struct {
    pool *p;
    const float *q;
    const uint16_t *k, *v;
    const int64_t *lengths;
    int64_t count, heads, dim, value_dim, longest;
    float *out;
    uint16_t *key, *value; // [longest, dim], [longest, value_dim]: one head, which all threads share
    char *rooms;           // [threads, room_bytes]
    int64_t room_bytes;
} picture_job;

static void thread_layout(const picture_job *j, room *r, char **query, float **out, float **row) {
    *query = take(r, TOGETHER * lanes_bytes((int)j->dim));
    *out = take(r, TOGETHER * LANES * j->value_dim * (int64_t)sizeof(float));
    *row = take(r, j->value_dim * (int64_t)sizeof(float));
}

static void queries(const picture_job *j, int64_t start, int64_t length, int64_t h, int64_t first, int thread) {
    char *query;
    float *out, *row;
    room r = {j->rooms + thread * j->room_bytes, 0};
    thread_layout(j, &r, &query, &out, &row);
    attention states[TOGETHER];
    int64_t width = j->heads * j->dim;
    int groups = 0;
    for (; groups < TOGETHER && first + groups * LANES < length; groups++) {
        const float *lane[LANES];
        for (int l = 0; l < LANES; l++) {
            int64_t t = first + groups * LANES + l;
            lane[l] = t < length ? j->q + (start + t) * width + h * j->dim : NULL;
        }
        lanes q = lanes_at(query + groups * lanes_bytes((int)j->dim), (int)j->dim);
        lanes_fill(q, lane, 1.0f / sqrtf((float)j->dim), 0, (int)j->dim);
        states[groups] = attention_begin(q, (int)j->value_dim, out + groups * LANES * j->value_dim);
    }
    for (int64_t k = 0; k < length; k += KEYS) {
        int some = length - k < KEYS ? (int)(length - k) : KEYS;
        int32_t visible[LANES];
        for (int l = 0; l < LANES; l++) visible[l] = some;
        for (int g = 0; g < groups; g++)
            attention_add(&states[g], j->key + k * j->dim, j->dim, j->value + k * j->value_dim, j->value_dim, some,
                          visible);
    }
    for (int64_t t = first; t < first + groups * LANES && t < length; t++) {
        attention_end(&states[(t - first) / LANES], 1, (int)((t - first) % LANES), row);
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
                memcpy(j->key + t * j->dim, j->k + at, sizeof(uint16_t) * (size_t)j->dim);
                memcpy(j->value + t * j->value_dim, j->v + at, sizeof(uint16_t) * (size_t)j->dim);
                for (int64_t d = j->dim; d < j->value_dim; d++) j->value[t * j->value_dim + d] = 0;
            }
            pool_barrier(j->p);
            int64_t pieces = (length + TOGETHER * LANES - 1) / (TOGETHER * LANES);
            for (int64_t piece = thread; piece < pieces; piece += threads)
                queries(j, start, length, h, piece * TOGETHER * LANES, thread);
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
        j.key = take(&r, j.longest * dim * (int64_t)sizeof(uint16_t));
        j.value = take(&r, j.longest * j.value_dim * (int64_t)sizeof(uint16_t));
        room one = {0};
        char *query;
        float *states, *row;
        thread_layout(&j, &one, &query, &states, &row);
        j.room_bytes = one.used;
        j.rooms = take(&r, pool_threads(p) * one.used);
    }
    pool_run(p, work, &j);
}
