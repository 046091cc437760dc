// Attention of several queries at once, one in each lane of a vector, over keys and values that all of them share.
//
// The lanes are the heads of one token over its latents (decoding), or as many tokens of one head (prompts, pictures).
// Scores never leave the block of 64 keys that they belong to: maximum and sum go along (Milakov and Gimelshein,
// arXiv 1805.02867).

#ifndef KIMI_ATTENTION_H
#define KIMI_ATTENTION_H

#include <stdint.h>

#include "simd.h"

#define KEYS 64 // of one block at most
#define WIDEST 1024

// One vector of `dim` numbers a lane, side by side, to be multiplied by rows of bfloat16.
typedef struct {
    int dim;         // even, at most WIDEST
    float *plain;    // [dim, lanes]
    uint32_t *pairs; // [dim / 2, lanes], two bfloat16 each; where the processor multiplies those
} lanes;

typedef struct {
    lanes query;    // scaled
    int value_dim;    // a multiple of 16, whatever the lanes
    floats most, sum; // of each lane
    float *out;       // [lanes, value_dim], not yet divided by sum
} attention;

int64_t lanes_bytes(int dim);
lanes lanes_at(char *at, int dim);

// Fills numbers `from` to `to` (both even) of each lane; a lane that is NULL gets 0.
void lanes_fill(lanes l, const float *const lane[LANES], float scale, int from, int to);

// What follows `plain` when that was filled by hand.
void lanes_pair(lanes l, int from, int to);

// out[t] = each lane times row t, of bfloat16 rows `stride` numbers apart.
void lanes_times(lanes l, const uint16_t *rows, int64_t stride, int count, floats *out);

// out is [lanes, value_dim].
attention attention_begin(lanes query, int value_dim, float *out);

// Adds at most 64 keys and values (bfloat16 rows `key_stride` and `value_stride` numbers apart). Lane l sees the
// first visible[l] of them.
void attention_add(attention *a, const uint16_t *key, int64_t key_stride, const uint16_t *value, int64_t value_stride,
                   int keys, const int32_t visible[LANES]);

// to [value_dim] gets one lane of attentions over parts of the keys.
void attention_end(const attention *parts, int count, int lane, float *to);

#endif
