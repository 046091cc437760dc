// Float matrices to 4 bits.

#ifndef KIMI_ENCODE_H
#define KIMI_ENCODE_H

#include "int4.h"

// weights [rows, columns] float32 to blocks (see int4.h) and row_scale [rows padded to 16].
// A group's scale is that of least squared error among those tried. squared[0] gets the sum of squared errors, and
// squared[1] that of the weights' squares.
void int4_encode(pool *p, const float *weights, int64_t rows, int64_t columns, uint8_t *blocks, float *row_scale,
                 double *squared);

#endif
