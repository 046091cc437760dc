// MoonViT's attention: every patch of a picture sees all patches of that picture.

#ifndef KIMI_PICTURE_H
#define KIMI_PICTURE_H

#include <stdint.h>

#include "pool.h"

// q float32, k and v bfloat16, out float32, all [patches, heads, dim]; dim is even. lengths [count] are the patches of
// each picture, which lie end to end.
void picture_attention(pool *p, const float *q, const uint16_t *k, const uint16_t *v, const int64_t *lengths,
                       int64_t count, int64_t heads, int64_t dim, float *out);

#endif
