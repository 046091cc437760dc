// The feed-forward half of a decoder layer: x += shared expert + chosen experts, of RMSNorm(x).
//
// Each expert's weights are read once, whatever the number of tokens. A token's experts are added in the order of
// their numbers, after the shared one.

#ifndef KIMI_EXPERTS_H
#define KIMI_EXPERTS_H

#include "int4.h"

typedef struct latent_attention latent_attention; // see latent.h

typedef struct {
    int4_matrix gate_up; // [2 · inner padded to 16, hidden], sixteen rows of gate and sixteen of up in turn
    int4_matrix down;    // [hidden, inner]
} swiglu;

typedef struct {
    const float *norm; // [hidden]
    float eps;
    int32_t hidden;
    swiglu shared; // or the whole of a dense layer
    // the rest only if experts > 0
    int32_t experts, chosen, groups, kept_groups, normalize;
    float routed_scale;
    const float *router, *bias; // [experts, hidden], [experts]
    swiglu one;                 // the first expert's; the others' lie behind each of its matrices
} feed_forward;

// x [tokens, hidden] is read and replaced. chosen [tokens, chosen] gets the experts' numbers, ascending, unless NULL.
// `then` is what runs after this, or NULL.
void feed_forward_run(pool *p, const feed_forward *f, float *x, int64_t tokens, int32_t *chosen,
                      const latent_attention *then);

// What a thread reads first of a feed-forward half.
void feed_forward_ahead(const feed_forward *f, int thread, int threads, ahead *soon);

#endif
