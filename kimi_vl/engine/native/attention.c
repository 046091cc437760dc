#include "attention.h"

#define NOTHING -1e30f

int64_t lanes_bytes(int dim) { return (int64_t)LANES * dim * 6; }

lanes lanes_at(char *at, int dim) {
    float *plain = (float *)at;
    return (lanes){dim, plain, (uint32_t *)(plain + (int64_t)LANES * dim)};
}

void lanes_fill(lanes l, const float *const lane[LANES], float scale, int from, int to) {
    for (int i = 0; i < LANES; i++)
        for (int d = from; d < to; d++) l.plain[d * LANES + i] = lane[i] ? lane[i][d] * scale : 0;
    lanes_pair(l, from, to);
}

#if KIMI_AVX512

// Two vectors of floats as bfloat16, `even` in the lower halves.
INLINE words paired(floats even, floats odd) {
    return bf16_bits(even) | bf16_bits(odd) << 16;
}

void lanes_pair(lanes l, int from, int to) {
    for (int d = from; d < to; d += 2) {
        words both = paired(load(l.plain + d * LANES), load(l.plain + (d + 1) * LANES));
        memcpy(l.pairs + d / 2 * LANES, &both, sizeof both);
    }
}

INLINE __m512bh pair(const uint16_t *from) {
    int32_t both;
    memcpy(&both, from, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

INLINE void times(lanes l, const int some, const uint16_t *rows, int64_t stride, floats *out) {
    __m512 sum[16];
    for (int t = 0; t < some; t++) sum[t] = _mm512_setzero_ps();
    for (int d = 0; d < l.dim; d += 2) {
        __m512bh q = (__m512bh)_mm512_loadu_si512(l.pairs + d / 2 * LANES);
        for (int t = 0; t < some; t++) sum[t] = _mm512_dpbf16_ps(sum[t], q, pair(rows + t * stride + d));
    }
    for (int t = 0; t < some; t++) out[t] = (floats)sum[t];
}

void lanes_times(lanes l, const uint16_t *rows, int64_t stride, int count, floats *out) {
    int t = 0;
    for (; t + 16 <= count; t += 16) times(l, 16, rows + t * stride, stride, out + t);
    for (; t < count; t++) times(l, 1, rows + t * stride, stride, out + t);
}

static void mix(attention *a, const floats *weights, floats shrink, const uint16_t *value, int64_t stride, int keys) {
    uint32_t both[KEYS / 2][LANES];
    int pairs = (keys + 1) / 2;
    for (int t = 0; t < pairs; t++) {
        words two = paired(weights[2 * t], 2 * t + 1 < keys ? weights[2 * t + 1] : (floats){0});
        memcpy(both[t], &two, sizeof two);
    }
    for (int d = 0; d < a->value_dim; d += LANES) {
        __m512 sum[LANES];
        for (int l = 0; l < LANES; l++)
            sum[l] = _mm512_mul_ps(_mm512_loadu_ps(a->out + l * a->value_dim + d), _mm512_set1_ps(shrink[l]));
        for (int t = 0; t < pairs; t++) {
            const uint16_t *row = value + 2 * t * stride + d;
            const uint16_t *next = 2 * t + 1 < keys ? row + stride : row;
            __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)row));
            __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)next));
            __m512bh v = (__m512bh)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
            for (int l = 0; l < LANES; l++)
                sum[l] = _mm512_dpbf16_ps(sum[l], v, (__m512bh)_mm512_set1_epi32((int32_t)both[t][l]));
        }
        for (int l = 0; l < LANES; l++) _mm512_storeu_ps(a->out + l * a->value_dim + d, sum[l]);
    }
}

#else

void lanes_pair(lanes l, int from, int to) {
    (void)l, (void)from, (void)to;
}

// Rows that meet a lane's number while it is in a register.
#define TOGETHER 8

INLINE void times(lanes l, const int some, const float *rows, floats *out) {
    floats sum[TOGETHER];
    for (int t = 0; t < some; t++) sum[t] = (floats){0};
    for (int d = 0; d < l.dim; d++) {
        floats q = load(l.plain + d * LANES);
        for (int t = 0; t < some; t++) sum[t] += q * rows[t * l.dim + d];
    }
    for (int t = 0; t < some; t++) out[t] = sum[t];
}

void lanes_times(lanes l, const uint16_t *rows, int64_t stride, int count, floats *out) {
    float plain[TOGETHER * WIDEST];
    for (int t = 0; t < count; t += TOGETHER) {
        int some = count - t < TOGETHER ? count - t : TOGETHER;
        for (int i = 0; i < some; i++) {
            const uint16_t *row = rows + (t + i) * stride;
            for (int d = 0; d < l.dim; d++) {
                uint32_t bits = (uint32_t)row[d] << 16;
                memcpy(plain + i * l.dim + d, &bits, sizeof bits);
            }
        }
        if (some == TOGETHER)
            times(l, TOGETHER, plain, out + t);
        else
            for (int i = 0; i < some; i++) times(l, 1, plain + i * l.dim, out + t + i);
    }
}

static void mix(attention *a, const floats *weights, floats shrink, const uint16_t *value, int64_t stride, int keys) {
    for (int d = 0; d < a->value_dim; d += 2 * LANES)
        for (int lane = 0; lane < LANES; lane += 4) {
            floats low[4], high[4];
            for (int l = 0; l < 4; l++) {
                const float *out = a->out + (lane + l) * a->value_dim + d;
                low[l] = load(out) * shrink[lane + l];
                high[l] = load(out + LANES) * shrink[lane + l];
            }
            for (int t = 0; t < keys; t++) {
                const float *weight = (const float *)(weights + t) + lane;
                floats v = from_bf16(value + t * stride + d), w = from_bf16(value + t * stride + d + LANES);
                for (int l = 0; l < 4; l++) {
                    low[l] += v * weight[l];
                    high[l] += w * weight[l];
                }
            }
            for (int l = 0; l < 4; l++) {
                float *out = a->out + (lane + l) * a->value_dim + d;
                store(out, low[l]);
                store(out + LANES, high[l]);
            }
        }
}

#endif

attention attention_begin(lanes query, int value_dim, float *out) {
    memset(out, 0, sizeof(float) * LANES * (size_t)value_dim);
    return (attention){query, value_dim, splat(NOTHING), {0}, out};
}

void attention_add(attention *a, const uint16_t *key, int64_t key_stride, const uint16_t *value, int64_t value_stride,
                   int keys, const int32_t visible[LANES]) {
    floats scores[KEYS];
    lanes_times(a->query, key, key_stride, keys, scores);
    ints limit;
    memcpy(&limit, visible, sizeof limit);
    int fewest = keys;
    for (int l = 0; l < LANES; l++) fewest = visible[l] < fewest ? visible[l] : fewest;
    for (int t = fewest < 0 ? 0 : fewest; t < keys; t++)
        scores[t] = blend(limit > t, scores[t], splat(NOTHING));
    floats most = a->most;
    for (int t = 0; t < keys; t++) most = larger(most, scores[t]);
    floats shrink = exponential(a->most - most), sum = a->sum * shrink;
    for (int t = 0; t < keys; t++) {
        // what is hidden from a lane that has seen nothing yet would else count as e^0
        floats weight = exponential(scores[t] - most);
        scores[t] = blend(scores[t] > splat(NOTHING), weight, (floats){0});
        sum += scores[t];
    }
    mix(a, scores, shrink, value, value_stride, keys);
    a->most = most;
    a->sum = sum;
}

void attention_end(const attention *parts, int count, int lane, float *to) {
    floats share[count];
    float most = NOTHING, sum = 0;
    for (int i = 0; i < count; i++) most = parts[i].most[lane] > most ? parts[i].most[lane] : most;
    for (int i = 0; i < count; i++) {
        share[i] = exponential(splat(parts[i].most[lane] - most));
        sum += parts[i].sum[lane] * share[i][0];
    }
    int value_dim = parts[0].value_dim;
    for (int d = 0; d < value_dim; d += LANES) {
        floats out = {0};
        for (int i = 0; i < count; i++) out += load(parts[i].out + (int64_t)lane * value_dim + d) * share[i];
        store(to + d, out / sum);
    }
}
