// All layers of the decoder, one after the other.

#ifndef KIMI_DECODER_H
#define KIMI_DECODER_H

#include "experts.h"
#include "latent.h"

typedef struct {
    latent_attention attention;
    feed_forward feed_forward;
} decoder_layer;

// As latent_attention_run and feed_forward_run for each of `count` layers. cache is [count], `layer_bytes` apart. chosen
// [layers that have experts, tokens, chosen] gets the experts' numbers unless it is NULL.
void decoder_run(pool *p, const decoder_layer *layers, int32_t count, float *x, const segment *segments,
                 int32_t segment_count, uint8_t *cache, int64_t layer_bytes, int32_t eight, int32_t *chosen);

#endif
