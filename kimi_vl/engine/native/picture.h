// MoonViT's attention: every patch of a picture sees all patches of that picture.

#ifndef KIMI_PICTURE_H
#define KIMI_PICTURE_H

#include <stdint.h>

#include "pool.h"

// qkv is [patches, 3, heads, dim], out [patches, heads, dim]; dim is even. Pairs of numbers of queries and keys are
// turned by the angles of which cosine and sine [patches, dim / 2] are given (arXiv 2104.09864).
void picture_attention(pool *p, const float *qkv, const float *cosine, const float *sine, int64_t patches,
                       int64_t heads, int64_t dim, float *out);

#endif
