#include "attention.h"

#define NOTHING -1e30f

void to_numbers(number *to, const uint16_t *from, int count) {
#if KIMI_AVX512
    memcpy(to, from, sizeof(number) * (size_t)count);
#else
    int i = 0;
    for (; i + LANES <= count; i += LANES) store(to + i, from_bf16(from + i));
    for (; i < count; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(to + i, &bits, sizeof bits);
    }
#endif
}

int64_t queries_bytes(int dim) { return (int64_t)QUERIES * dim * (int64_t)sizeof(number); }

#if KIMI_AVX512

// Two vectors of floats as bfloat16, `even` in the lower halves.
INLINE words paired(floats even, floats odd) {
    return bf16_bits(even) | bf16_bits(odd) << 16;
}

void queries_fill(number *queries, const float *const query[QUERIES], float scale, int from, int to) {
    for (int d = from; d < to; d += 2) {
        floats even, odd;
        for (int l = 0; l < LANES; l++) {
            even[l] = query[l] ? query[l][d] * scale : 0;
            odd[l] = query[l] ? query[l][d + 1] * scale : 0;
        }
        words both = paired(even, odd);
        memcpy(queries + d * LANES, &both, sizeof both);
    }
}

INLINE __m512bh pair(const uint16_t *from) {
    int32_t both;
    memcpy(&both, from, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

INLINE void times(const attention *a, const int some, const number *rows, int64_t stride, floats (*out)[VECTORS]) {
    __m512 sum[16];
#pragma GCC unroll 16
    for (int t = 0; t < some; t++) sum[t] = _mm512_setzero_ps();
    for (int d = 0; d < a->dim; d += 2) {
        __m512bh q = (__m512bh)_mm512_loadu_si512(a->queries + d * LANES);
#pragma GCC unroll 16
        for (int t = 0; t < some; t++) sum[t] = _mm512_dpbf16_ps(sum[t], q, pair(rows + t * stride + d));
        ahead_fetch(a->soon);
    }
#pragma GCC unroll 16
    for (int t = 0; t < some; t++) out[t][0] = (floats)sum[t];
}

static void scores_of(const attention *a, const number *rows, int64_t stride, int count, floats (*out)[VECTORS]) {
    int t = 0;
    for (; t + 16 <= count; t += 16) times(a, 16, rows + t * stride, stride, out + t);
    for (; t + 4 <= count; t += 4) times(a, 4, rows + t * stride, stride, out + t);
    for (; t < count; t++) times(a, 1, rows + t * stride, stride, out + t);
}

static void mix(attention *a, floats (*weights)[VECTORS], const floats *shrink, const number *value, int64_t stride,
                int keys) {
    uint32_t both[KEYS / 2][LANES];
    int pairs = (keys + 1) / 2;
    for (int t = 0; t < pairs; t++) {
        words two = paired(weights[2 * t][0], 2 * t + 1 < keys ? weights[2 * t + 1][0] : (floats){0});
        memcpy(both[t], &two, sizeof two);
    }
    for (int d = 0; d < a->value_dim; d += LANES) {
        __m512 sum[LANES];
#pragma GCC unroll 16
        for (int l = 0; l < LANES; l++)
            sum[l] = _mm512_mul_ps(_mm512_loadu_ps(a->out + l * a->value_dim + d), _mm512_set1_ps(shrink[0][l]));
        for (int t = 0; t < pairs; t++) {
            const number *row = value + 2 * t * stride + d;
            const number *next = 2 * t + 1 < keys ? row + stride : row;
            __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)row));
            __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)next));
            __m512bh v = (__m512bh)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
#pragma GCC unroll 16
            for (int l = 0; l < LANES; l++)
                sum[l] = _mm512_dpbf16_ps(sum[l], v, (__m512bh)_mm512_set1_epi32((int32_t)both[t][l]));
            ahead_fetch(a->soon);
        }
#pragma GCC unroll 16
        for (int l = 0; l < LANES; l++) _mm512_storeu_ps(a->out + l * a->value_dim + d, sum[l]);
    }
}

#else

void queries_fill(number *queries, const float *const query[QUERIES], float scale, int from, int to) {
    for (int d = from; d < to; d++)
        for (int i = 0; i < QUERIES; i++) queries[d * QUERIES + i] = query[i] ? query[i][d] * scale : 0;
}

// Numbers of queries that stay in the cache nearest to the core while all rows pass.
#define NEAR 192

// Of how many numbers or keys one comes with a line that is fetched.
#define FETCH 4

// As many sums as there are registers for.
INLINE void times(const int some, const attention *a, const number *rows, int64_t stride, int from, int to,
                  floats (*out)[VECTORS]) {
    floats sum[6][VECTORS];
    for (int t = 0; t < some; t++)
        for (int v = 0; v < VECTORS; v++) sum[t][v] = from ? out[t][v] : (floats){0};
    for (int d = from; d < to; d++) {
        floats q[VECTORS];
        for (int v = 0; v < VECTORS; v++) q[v] = load(a->queries + d * QUERIES + v * LANES);
        for (int t = 0; t < some; t++)
            for (int v = 0; v < VECTORS; v++) sum[t][v] += q[v] * rows[t * stride + d];
        if (d % FETCH == 0) ahead_fetch(a->soon);
    }
    for (int t = 0; t < some; t++)
        for (int v = 0; v < VECTORS; v++) out[t][v] = sum[t][v];
}

static void scores_of(const attention *a, const number *rows, int64_t stride, int count, floats (*out)[VECTORS]) {
    for (int from = 0; from < a->dim; from += NEAR) {
        int to = from + NEAR < a->dim ? from + NEAR : a->dim, t = 0;
        for (; t + 6 <= count; t += 6) times(6, a, rows + t * stride, stride, from, to, out + t);
        for (; t + 4 <= count; t += 4) times(4, a, rows + t * stride, stride, from, to, out + t);
        for (; t < count; t++) times(1, a, rows + t * stride, stride, from, to, out + t);
    }
}

// out of four queries, `wide` vectors of it.
INLINE void mix_some(const int wide, float *out, int64_t out_stride, const float *weights, const float *shrink,
                     const number *value, int64_t stride, int keys, ahead *soon) {
    floats sum[4][3];
    for (int i = 0; i < 4; i++)
        for (int v = 0; v < wide; v++) sum[i][v] = load(out + i * out_stride + v * LANES) * shrink[i];
    for (int t = 0; t < keys; t++) {
        floats x[3];
        for (int v = 0; v < wide; v++) x[v] = load(value + t * stride + v * LANES);
        for (int i = 0; i < 4; i++)
            for (int v = 0; v < wide; v++) sum[i][v] += x[v] * weights[t * QUERIES + i];
        if (t % FETCH == 0) ahead_fetch(soon);
    }
    for (int i = 0; i < 4; i++)
        for (int v = 0; v < wide; v++) store(out + i * out_stride + v * LANES, sum[i][v]);
}

static void mix(attention *a, floats (*weights)[VECTORS], const floats *shrink, const number *value, int64_t stride,
                int keys) {
    int wide;
    for (int d = 0; d < a->value_dim; d += wide * LANES) {
        int left = (a->value_dim - d) / LANES;
        wide = left >= 3 && left != 4 ? 3 : 2;
        for (int i = 0; i < QUERIES; i += 4) {
            float *out = a->out + i * a->value_dim + d;
            const float *weight = (const float *)weights + i, *less = (const float *)shrink + i;
            if (wide == 3)
                mix_some(3, out, a->value_dim, weight, less, value + d, stride, keys, a->soon);
            else
                mix_some(2, out, a->value_dim, weight, less, value + d, stride, keys, a->soon);
        }
    }
}

#endif

attention attention_begin(const number *queries, int dim, int value_dim, float *out, ahead *soon) {
    attention a = {.queries = queries, .dim = dim, .value_dim = value_dim, .out = out, .soon = soon};
    memset(out, 0, sizeof(float) * QUERIES * (size_t)value_dim);
    for (int v = 0; v < VECTORS; v++) a.most[v] = splat(NOTHING);
    return a;
}

void attention_add(attention *a, const number *key, int64_t key_stride, const number *value, int64_t value_stride,
                   int keys, int visible, int step) {
    floats scores[KEYS][VECTORS], shrink[VECTORS];
    scores_of(a, key, key_stride, keys, scores);
    for (int v = 0; v < VECTORS; v++) {
        ints limit;
        for (int l = 0; l < LANES; l++) limit[l] = visible + (v * LANES + l) * step;
        for (int t = visible > 0 ? visible : 0; t < keys; t++)
            scores[t][v] = blend(limit > t, scores[t][v], splat(NOTHING));
        floats most = a->most[v];
        for (int t = 0; t < keys; t++) most = larger(most, scores[t][v]);
        shrink[v] = exponential(a->most[v] - most);
        floats sum = a->sum[v] * shrink[v];
        for (int t = 0; t < keys; t++) {
            // what is hidden from a query that has seen nothing yet would else count as e^0
            floats weight = exponential(scores[t][v] - most);
            scores[t][v] = blend(scores[t][v] > splat(NOTHING), weight, (floats){0});
            sum += scores[t][v];
        }
        a->most[v] = most;
        a->sum[v] = sum;
    }
    mix(a, scores, shrink, value, value_stride, keys);
}

void attention_end(const attention *parts, int count, int query, float *to) {
    int v = query / LANES, l = query % LANES;
    floats share[count];
    float most = NOTHING, sum = 0;
    for (int i = 0; i < count; i++) most = parts[i].most[v][l] > most ? parts[i].most[v][l] : most;
    for (int i = 0; i < count; i++) {
        share[i] = exponential(splat(parts[i].most[v][l] - most));
        sum += parts[i].sum[v][l] * share[i][0];
    }
    int value_dim = parts[0].value_dim;
    for (int d = 0; d < value_dim; d += LANES) {
        floats out = {0};
        for (int i = 0; i < count; i++) out += load(parts[i].out + (int64_t)query * value_dim + d) * share[i];
        store(to + d, out / sum);
    }
}
