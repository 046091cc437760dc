#include "picture.h"

#include <math.h>

#include "attention.h"

// Groups of queries that meet a block of keys while it lies in a core's first cache.
#define BESIDE (128 / QUERIES)

typedef struct {
    pool *p;
    const float *qkv, *cosine, *sine;
    int64_t patches, heads, dim, value_dim;
    float *out;
    memory m;         // patches of one head, which all threads share
    float *turned;    // [threads, QUERIES, dim]
    uint8_t *queries; // [threads, BESIDE]
    float *state_out; // [threads, BESIDE, QUERIES, value_dim]
    float *row;       // [threads, value_dim]
    int64_t *taken;   // [heads]
} picture_job;

static void turn(const picture_job *j, int64_t patch, const float *x, float *to) {
    const float *cosine = j->cosine + patch * j->dim / 2, *sine = j->sine + patch * j->dim / 2;
    for (int64_t i = 0; i < j->dim / 2; i++) {
        float even = x[2 * i], odd = x[2 * i + 1];
        to[2 * i] = even * cosine[i] - odd * sine[i];
        to[2 * i + 1] = even * sine[i] + odd * cosine[i];
    }
}

// Queries, keys or values (0, 1, 2) of one patch and head.
static const float *part(const picture_job *j, int64_t patch, int which, int64_t h) {
    return j->qkv + ((patch * 3 + which) * j->heads + h) * j->dim;
}

static void keys_and_values(const picture_job *j, share patches, int64_t h, float *turned, float *value) {
    memset(value, 0, sizeof(float) * (size_t)j->value_dim);
    for (int64_t t = patches.from; t < patches.to; t++) {
        turn(j, t, part(j, t, 1, h), turned);
        key_from_floats(&j->m, t, turned);
        memcpy(value, part(j, t, 2, h), sizeof(float) * (size_t)j->dim);
        value_from_floats(&j->m, t, value);
    }
}

static void queries(const picture_job *j, int64_t h, int64_t first, int thread, ahead *soon) {
    int64_t bytes = queries_bytes((int)j->dim);
    float *out = j->state_out + thread * BESIDE * QUERIES * j->value_dim, *row = j->row + thread * j->value_dim;
    float *turned = j->turned + thread * QUERIES * j->dim;
    attention states[BESIDE];
    int groups = 0;
    for (; groups < BESIDE && first + groups * QUERIES < j->patches; groups++) {
        const float *query[QUERIES] = {NULL};
        for (int l = 0; l < QUERIES && first + groups * QUERIES + l < j->patches; l++) {
            int64_t t = first + groups * QUERIES + l;
            turn(j, t, part(j, t, 0, h), turned + l * j->dim);
            query[l] = turned + l * j->dim;
        }
        factor *mine = (factor *)(j->queries + (thread * BESIDE + groups) * bytes);
        queries_fill(mine, query, 1.0f / sqrtf((float)j->dim), (int)j->dim, 0, CHUNKS((int)j->dim));
        states[groups] =
            attention_begin(mine, (int)j->dim, (int)j->value_dim, out + groups * QUERIES * j->value_dim, soon);
    }
    for (int64_t k = 0; k < j->patches; k += KEYS) {
        int some = j->patches - k < KEYS ? (int)(j->patches - k) : KEYS;
        for (int g = 0; g < groups; g++) attention_add(&states[g], &j->m, k, some, some, 0);
    }
    for (int64_t t = first; t < first + groups * QUERIES && t < j->patches; t++) {
        attention_end(&states[(t - first) / QUERIES], 1, (int)((t - first) % QUERIES), row);
        memcpy(j->out + (t * j->heads + h) * j->dim, row, sizeof(float) * (size_t)j->dim);
    }
}

static void work(void *context, int thread, int threads) {
    picture_job *j = context;
    share mine = share_of(j->patches, thread, threads);
    int64_t beside = BESIDE * QUERIES;
    ahead nothing = {0};
    for (int64_t h = 0; h < j->heads; h++) {
        keys_and_values(j, mine, h, j->turned + thread * QUERIES * j->dim, j->row + thread * j->value_dim);
        pool_barrier(j->p, &nothing);
        for (int64_t n; (n = next_piece(j->taken + h)) * beside < j->patches;) queries(j, h, n * beside, thread, &nothing);
        pool_barrier(j->p, &nothing);
    }
}

void picture_attention(pool *p, const float *qkv, const float *cosine, const float *sine, int64_t patches,
                       int64_t heads, int64_t dim, float *out) {
    picture_job j = {p, qkv, cosine, sine, patches, heads, dim, .out = out};
    j.value_dim = padded(dim, STEP);
    room r = {0};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) r = (room){pool_room(p, r.used), 0};
        int64_t threads = pool_threads(p), floats = sizeof(float);
        j.m = take_memory(&r, patches, (int)dim, (int)j.value_dim, 0);
        j.turned = take(&r, threads * QUERIES * dim * floats);
        j.queries = take(&r, threads * BESIDE * queries_bytes((int)dim));
        j.state_out = take(&r, threads * BESIDE * QUERIES * j.value_dim * floats);
        j.row = take(&r, threads * j.value_dim * floats);
        j.taken = take(&r, heads * (int64_t)sizeof(int64_t));
    }
    memset(j.taken, 0, sizeof(int64_t) * (size_t)heads);
    pool_run(p, work, &j);
}
