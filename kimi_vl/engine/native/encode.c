#include "encode.h"

#include <math.h>

#include "simd.h"

// How far the largest weight of a group may lie from the lowest level, -8: further in, it is cut off, further out,
// levels are given up.
#define TRIED 19
static const float LEVEL[TRIED] = {6.0f, 6.25f, 6.5f, 6.75f, 7.0f, 7.2f, 7.4f, 7.6f, 7.8f, 8.0f,
                                   8.2f, 8.4f,  8.6f, 8.8f,  9.0f, 9.25f, 9.5f, 9.75f, 10.0f};

INLINE floats clamped(floats x) { return smaller(larger(x, splat(-8.0f)), splat(7.0f)); }

// The scales (of either sign) with which groups, one a lane, lose least.
static floats best_scales(const floats x[GROUP]) {
    floats most = {0}, best = splat(-1.0f), scale = {0};
    for (int c = 0; c < GROUP; c++) most = blend(larger(x[c], -x[c]) > larger(most, -most), x[c], most);
    ints empty = most == splat(0);
    floats unit = 1.0f / blend(empty, splat(1.0f), most);
    for (int i = 0; i < 2 * TRIED; i++) {
        // once the largest weight goes down to -8, once up to 7
        floats inverse = unit * (i % 2 ? LEVEL[i / 2] : -LEVEL[i / 2]), xq = {0}, qq = {0};
        for (int c = 0; c < GROUP; c++) {
            floats q = clamped(rounded(x[c] * inverse));
            xq += x[c] * q;
            qq += q * q;
        }
        // with the best scale for these levels, xq / qq, the squared error falls by this much
        floats candidate = xq / blend(qq > splat(0), qq, splat(1.0f)), gain = candidate * xq;
        ints better = gain > best;
        best = blend(better, gain, best);
        scale = blend(better, candidate, scale);
    }
    return blend(empty, splat(0), scale);
}

typedef struct {
    const float *weights;
    int64_t rows, columns, padded_columns;
    uint8_t *blocks;
    float *row_scale;
    double *squared; // [threads, 2]
} encode_job;

// Columns `from` on of a row, with 0 for what there is not.
static void columns_of(const encode_job *j, int64_t row, int64_t from, int64_t count, float *to) {
    int64_t some = row < j->rows && from < j->columns ? j->columns - from : 0;
    some = some < count ? some : count;
    if (some) memcpy(to, j->weights + row * j->columns + from, sizeof(float) * (size_t)some);
    memset(to + some, 0, sizeof(float) * (size_t)(count - some));
}

static void encode_row(const encode_job *j, int64_t row, double squared[2]) {
    int64_t groups = j->padded_columns / GROUP;
    float part[LANES * GROUP], scale[padded(groups, LANES)], largest = 0;
    for (int64_t first = 0; first < groups; first += LANES) {
        floats x[GROUP];
        columns_of(j, row, first * GROUP, LANES * GROUP, part);
        for (int c = 0; c < GROUP; c++)
            for (int l = 0; l < LANES; l++) x[c][l] = part[l * GROUP + c];
        store(scale + first, best_scales(x));
    }
    for (int64_t g = 0; g < groups; g++) largest = fabsf(scale[g]) > largest ? fabsf(scale[g]) : largest;
    float unit = largest / 127.0f;
    j->row_scale[row] = unit;
    uint8_t *at = j->blocks + row / ROWS * (groups / GROUPS) * BLOCK_BYTES;
    int64_t r = row % ROWS;
    floats error = {0}, whole_square = {0};
    for (int64_t g = 0; g < groups; g++) {
        columns_of(j, row, g * GROUP, GROUP, part);
        int whole = unit > 0 ? (int)rintf(scale[g] / unit) : 0;
        float step = (float)whole * unit, inverse = whole ? 1.0f / step : 0;
        uint8_t *block = at + g / GROUPS * BLOCK_BYTES;
        block[g % GROUPS * ROWS + r] = (uint8_t)(int8_t)whole;
        uint8_t *nibbles = block + GROUPS * ROWS + g % GROUPS * 256 + 4 * r;
        float level[GROUP];
        for (int c = 0; c < GROUP; c += LANES) {
            floats x = load(part + c), q = clamped(rounded(x * inverse)), off = x - q * step;
            store(level + c, q);
            error += off * off;
            whole_square += x * x;
        }
        for (int c = 0; c < GROUP / 2; c++)
            nibbles[64 * (c / 4) + c % 4] = (uint8_t)(((int)level[c] + 8) | ((int)level[c + GROUP / 2] + 8) << 4);
    }
    squared[0] += sum_of(error);
    squared[1] += sum_of(whole_square);
}

static void work(void *context, int thread, int threads) {
    const encode_job *j = context;
    share mine = share_of(padded(j->rows, ROWS), thread, threads);
    double squared[2] = {0, 0};
    for (int64_t row = mine.from; row < mine.to; row++) encode_row(j, row, squared);
    memcpy(j->squared + 2 * thread, squared, sizeof squared);
}

void int4_encode(pool *p, const float *weights, int64_t rows, int64_t columns, uint8_t *blocks, float *row_scale,
                 double *squared) {
    double each[2 * pool_threads(p)];
    encode_job j = {weights, rows, columns, padded(columns, COLUMNS), blocks, row_scale, each};
    pool_run(p, work, &j);
    squared[0] = squared[1] = 0;
    for (int i = 0; i < 2 * pool_threads(p); i++) squared[i % 2] += each[i];
}
