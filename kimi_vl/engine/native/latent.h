// The attention half of a decoder layer (MLA) over a paged cache of latents: x += o(attention(RMSNorm(x))).
//
// A step's tokens come as segments, each the next tokens of one sequence. A prompt's tokens go many at once, and
// latents are expanded to keys and values of each head (the plain form); an answer's tokens attend in latent space
// (the absorbed form). No result depends on what else is in the step or on how a prompt is cut into steps.

#ifndef KIMI_LATENT_H
#define KIMI_LATENT_H

#include "experts.h"
#include "int4.h"

#define PAGE 64 // tokens of one page of the cache

struct latent_attention {
    const float *norm, *latent_norm; // [hidden], [rank]
    const float *frequency;          // [rope / 2], radians a position
    float eps, latent_eps;
    int32_t hidden, heads, rank, nope, rope, value; // rank, nope and value are multiples of 16
    int4_matrix q, latent, o; // [heads · (nope + rope), hidden], [rank + rope, hidden], [hidden, heads · value]
    // kv_b_proj of the first head, the others' lie behind: its rows for values [value, rank]; those for keys transposed,
    // [rank, nope], and upright, [nope, rank]
    int4_matrix mix, key, upright;
};

typedef struct {
    const int32_t *pages;     // where in the cache the sequence lies, page by page
    int32_t tokens;           // they follow those of the segment before
    int32_t start;            // position of the first: so many are in the cache already
    int32_t is_prompt;        // all segments that are none come before those that are
} segment;

// x [tokens, hidden] is read and replaced. cache is this layer's [pages, 64] rows, and gets those of the tokens: rank +
// rope numbers of bfloat16, or, if `eight` is set, as many of 8 bits and behind them a float scale for each 128 of the
// latent and one for the rest. `then` is what runs after this, or NULL.
void latent_attention_run(pool *p, const latent_attention *a, float *x, const segment *segments, int32_t count,
                          void *cache, int32_t eight, const feed_forward *then);

// What a thread reads first of an attention half.
void latent_attention_ahead(const latent_attention *a, int thread, int threads, ahead *soon);

#endif
