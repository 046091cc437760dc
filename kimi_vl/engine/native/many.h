// Products of thousands of rows, a picture's patches, with matrices of more than 4 bits, by the factors of attention:
// sixteen rows of a matrix stand where queries stand there, patches where keys stand.

#ifndef KIMI_MANY_H
#define KIMI_MANY_H

#include "int4.h"

// Bytes of a matrix [rows, columns] as factors. `columns` is even.
int64_t many_bytes(int64_t rows, int64_t columns);

// The weights of w, without what it is padded with, as factors.
void many_pack(pool *p, const int4_matrix *w, int64_t rows, int64_t columns, uint8_t *packed);

// y [count, rows] = x [count, columns] times a packed matrix, plus bias [rows], after GELU (by tanh) if `gelu` is set.
void many_times(pool *p, const float *x, int64_t count, const uint8_t *packed, int64_t rows, int64_t columns,
                const float *bias, int32_t gelu, float *y);

#endif
