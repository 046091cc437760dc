// Matrices of 4-bit weights, and activations of 8 bits that meet them.
//
// A matrix [rows, columns] is cut into blocks of 16 rows × 128 columns. One block is 1,088 bytes:
//
//     64 bytes   scale[4 groups][16 rows], signed
//     4 × 256    for each group of 32 columns: byte[4][16 rows][4], of which byte [j][r][i] holds column 4j + i of
//                row r in its lower half and column 16 + 4j + i in its upper half, each as q = 0 … 15
//
//     weight = (q - 8) · scale · row_scale
//
// Blocks of one 16 rows lie side by side, and `stride` bytes behind where they begin the next 16 rows do. Rows are
// padded to 16 and columns to 128 with weights of 0.

#ifndef KIMI_INT4_H
#define KIMI_INT4_H

#include <stdint.h>

#include "pool.h"
#include "simd.h"

#define ROWS 16
#define COLUMNS 128
#define GROUP 32
#define GROUPS (COLUMNS / GROUP)
#define BLOCK_BYTES (GROUPS * ROWS + ROWS * COLUMNS / 2)

// Or the sum of two such matrices, of which the second, if it is there, is what the first left over.
typedef struct {
    const uint8_t *blocks;
    const float *row_scale; // [rows]
    const uint8_t *rest;    // blocks of the second, or NULL
    const float *rest_scale;
    int64_t rows, columns; // padded
    int64_t stride;        // of both
} int4_matrix;

// 8-bit activations of some tokens: x = q · scale of each 128 columns. Tokens that meet a weight together lie side by
// side, four columns each, in tiles of TOGETHER tokens; what is left over makes tiles of half as many, and so on.
typedef struct {
    int8_t *q;      // [tiles][columns / 4][tokens of a tile][4]
    float *scale;   // [tiles][columns / 128][tokens of a tile]
    int32_t *start; // [tiles][columns / 32][tokens of a tile], -8 · sum of a group's q, as products begin with it
    int64_t tokens, columns; // columns are padded
} int8_rows;

#if KIMI_AVX512
#define TOGETHER 8
#else
#define TOGETHER 4
#endif

int8_rows take_int8_rows(room *r, int64_t tokens, int64_t columns);

// The `tokens` from `first` on as rows of their own, before they are filled.
int8_rows int8_part(int8_rows of, int64_t first, int64_t tokens);

// x [128] to 8 bits as a block of columns of one token.
void int8_quantize_block(const float *x, int8_rows to, int64_t token, int64_t block);

// The same of a block of x [count], with 0 behind its end.
void int8_quantize_part(const float *x, int64_t count, int8_rows to, int64_t token, int64_t block);

// x [count] to 8 bits as one token, whose further columns get 0.
void int8_quantize_row(const float *x, int64_t count, int8_rows to, int64_t token);

void int8_copy_row(int8_rows to, int64_t token, int8_rows from, int64_t of);

// to[i] = x[i] · weight[i] / sqrt(mean(x²) + eps).
void rms_norm_row(const float *x, const float *weight, int64_t count, float eps, float *to);

// y[m][0 … 15] = the weights of 16 rows times x[first + m], for m = 0 … tokens - 1; y has `stride` floats a token.
// `first` is a multiple of TOGETHER, and so is `tokens` but at the end of x. The same bits whatever else is in x.
// `next` is where the weights lie that are wanted after these, so that they are on their way by then; NULL means
// those of the next rows.
void int4_times_int8(const int4_matrix *w, int64_t block_row, const int8_rows *x, int64_t first, int64_t tokens,
                     const uint8_t *next, float *y, int64_t stride);

// Weights of 16-row blocks of w to be read soon.
static inline void ahead_add_rows(ahead *a, const int4_matrix *w, share rows) {
    ahead_add(a, w->blocks + rows.from * w->stride, (rows.to - rows.from) * w->stride);
}

// Where 16 rows begin.
static inline const uint8_t *int4_rows_at(const int4_matrix *w, int64_t block_row) {
    return w->blocks + block_row * w->stride;
}

// The matrix `n` behind w, of the same size.
int4_matrix int4_behind(int4_matrix w, int64_t n);

// One thread's share of 16-row blocks for all tokens of x.
void int4_share(const int4_matrix *w, share rows, const int8_rows *x, float *y, int64_t stride);

// y [tokens, rows] = x [tokens, count] (after RMSNorm, if there is a norm) times w.
void int4_linear(pool *p, const float *x, int64_t count, int64_t tokens, const float *norm, float eps,
                 const int4_matrix *w, float *y);

// y [tokens, some, 16] = x, after RMSNorm, times those 16 rows of w each that wanted [tokens, some] names for a token.
void int4_linear_some(pool *p, const float *x, int64_t count, int64_t tokens, const float *norm, float eps,
                      const int4_matrix *w, const int32_t *wanted, int64_t some, float *y);

// to [16, columns] = the weights of 16 rows.
void int4_rows(const int4_matrix *w, int64_t block_row, float *to);

// to [rows, columns] = the weights, without what w is padded with.
void int4_numbers(pool *p, const int4_matrix *w, int64_t rows, int64_t columns, number *to);

#endif
