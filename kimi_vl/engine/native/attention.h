// Attention of several queries at once, side by side in the lanes of vectors, over keys and values that all of them
// share.
//
// The queries are the heads of one token over its latents (decoding), or as many tokens of one head (prompts, pictures).
// Scores never leave the block of 64 keys that they belong to: maximum and sum go along (Milakov and Gimelshein,
// arXiv 1805.02867).

#ifndef KIMI_ATTENTION_H
#define KIMI_ATTENTION_H

#include <stdint.h>

#include "ahead.h"
#include "simd.h"

#define KEYS 64 // of one block at most

#if KIMI_AVX512
#define VECTORS 1
#else
#define VECTORS 2
#endif
#define QUERIES (VECTORS * LANES)

// Rows that are read side by side should not be a multiple of 64 bytes apart: they would wait for one another.
#define APART(dim) ((dim) + 16 / (int)sizeof(number))

// bfloat16 to numbers.
void to_numbers(number *to, const uint16_t *from, int count);

// [dim, QUERIES], of which with bfloat16 two numbers of one query lie together.
int64_t queries_bytes(int dim);

// Numbers `from` up to `to` of each query, scaled; those of a query that is NULL are 0. Both are even.
void queries_fill(number *queries, const float *const query[QUERIES], float scale, int from, int to);

typedef struct {
    const number *queries;
    int dim, value_dim;                 // even; a multiple of LANES, and at least 16
    floats most[VECTORS], sum[VECTORS]; // of each query
    float *out;                         // [QUERIES, value_dim], not yet divided by sum
    ahead *soon;                        // fetched meanwhile
} attention;

// out is [QUERIES, value_dim].
attention attention_begin(const number *queries, int dim, int value_dim, float *out, ahead *soon);

// Adds at most 64 keys and values (rows `key_stride` and `value_stride` numbers apart). Query i sees the first
// visible + i · step of them.
void attention_add(attention *a, const number *key, int64_t key_stride, const number *value, int64_t value_stride,
                   int keys, int visible, int step);

// to [value_dim] gets one query of attentions over parts of the keys.
void attention_end(const attention *parts, int count, int query, float *to);

#endif
