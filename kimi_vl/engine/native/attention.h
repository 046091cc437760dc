// Attention of several queries at once, side by side in the lanes of vectors, over keys and values that all of them
// share.
//
// The queries are the heads of one token over its latents (decoding), or as many tokens of one head (prompts, pictures).
// Scores never leave the block of keys that they belong to: maximum and sum go along (Milakov and Gimelshein,
// arXiv 1805.02867).

#ifndef KIMI_ATTENTION_H
#define KIMI_ATTENTION_H

#include <stdint.h>

#include "ahead.h"
#include "pool.h"
#include "simd.h"

// What is multiplied: bfloat16 where the processor does that; with AVX2 whole numbers of 13 bits and the sign, of which
// 128 have a scale, since it multiplies them nearly twice as fast as floats; else floats.
#if KIMI_AVX512
typedef uint16_t factor;
#define VECTORS 1
#elif KIMI_AVX2
typedef int16_t factor;
#define VECTORS 2
#else
typedef float factor;
#define VECTORS 2
#endif
#define QUERIES (VECTORS * LANES)

#define KEYS 64   // of a block at most
#define CHUNK 128 // numbers of a query, key or value that have one scale
#define CHUNKS(dim) (((dim) + CHUNK - 1) / CHUNK)

// Rows that are read side by side should not be a multiple of 64 bytes apart: they would wait for one another.
#define APART(dim) ((dim) + 16 / (int)sizeof(factor))

#define STEP (LANES > 8 ? LANES : 8) // numbers of values that are added up together

// ---- queries ----

// [dim, QUERIES], of which but with floats two numbers of one query lie together, and their scales.
int64_t queries_bytes(int dim);

// The chunks `from` up to `to` of each query of `dim` numbers, scaled; those of a query that is NULL are 0. dim is even.
void queries_fill(factor *queries, const float *const query[QUERIES], float scale, int dim, int from, int to);

// ---- keys and values ----

typedef struct {
    int dim, value_dim;             // even; a multiple of STEP
    factor *key;                    // [count, APART(dim)]
    factor *value;                  // [count, value_stride]; with AVX2 [value_dim / 16, value_stride]
    int64_t value_stride;
    float *key_scale, *value_scale; // [count, CHUNKS(dim)], [count, CHUNKS(value_dim)] with AVX2, else none
    int shared;                     // values are the first numbers of keys
} memory;

memory take_memory(room *r, int64_t count, int dim, int value_dim, int shared);

// The first `count` keys, and values if these are shared, from [count, dim].
void keys_from_bf16(const memory *m, const uint16_t *x, int count);
void key_from_floats(const memory *m, int64_t t, const float *x);
// x[i] · the scale of its chunk
void key_from_int8(const memory *m, int64_t t, const int8_t *x, const float *scale);
void value_from_floats(const memory *m, int64_t t, const float *x);
// After `count` keys of a shared memory, unless they were of bfloat16.
void values_from_keys(const memory *m, int count);

#if KIMI_AVX512
#define TOGETHER_KEYS 16
#elif KIMI_AVX2
#define TOGETHER_KEYS 6
#else
#define TOGETHER_KEYS 4
#endif

// out[t] = queries · key `first` + t, for `count` keys, of which TOGETHER_KEYS at a time are fastest.
void scores(const factor *queries, const memory *m, int64_t first, int count, floats (*out)[VECTORS], ahead *soon);

// ---- attention ----

typedef struct {
    const factor *queries;
    int dim, value_dim;
    floats most[VECTORS], sum[VECTORS]; // of each query
    float *out;                         // [QUERIES, value_dim], not yet divided by sum
    ahead *soon;                        // fetched meanwhile
} attention;

// out is [QUERIES, value_dim].
attention attention_begin(const factor *queries, int dim, int value_dim, float *out, ahead *soon);

// Adds at most 64 keys and values from the `first` on, which is even. Query i sees the first visible + i · step of them.
void attention_add(attention *a, const memory *m, int64_t first, int keys, int visible, int step);

// to [value_dim] gets one query of attentions over parts of the keys.
void attention_end(const attention *parts, int count, int query, float *to);

#endif
