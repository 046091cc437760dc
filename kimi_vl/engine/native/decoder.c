#include "decoder.h"

void decoder_run(pool *p, const decoder_layer *layers, int32_t count, float *x, const segment *segments,
                 int32_t segment_count, uint8_t *cache, int64_t layer_bytes, int32_t eight, int32_t *chosen) {
    int64_t tokens = 0;
    for (int32_t i = 0; i < segment_count; i++) tokens += segments[i].tokens;
    for (int32_t i = 0; i < count; i++) {
        const feed_forward *f = &layers[i].feed_forward;
        latent_attention_run(p, &layers[i].attention, x, segments, segment_count, cache + i * layer_bytes, eight, f);
        feed_forward_run(p, f, x, tokens, chosen, i + 1 < count ? &layers[i + 1].attention : NULL);
        if (chosen) chosen += tokens * f->chosen;
    }
}
