// attention.c in bfloat16, by AVX-512.

int64_t queries_bytes(int dim) { return (int64_t)QUERIES * dim * (int64_t)sizeof(factor); }

// Two vectors of floats as bfloat16, `even` in the lower halves.
INLINE words paired(floats even, floats odd) {
    return bf16_bits(even) | bf16_bits(odd) << 16;
}

void queries_fill(factor *queries, const float *const query[QUERIES], float scale, int dim, int from, int to) {
    int end = to * CHUNK < dim ? to * CHUNK : dim;
    for (int d = from * CHUNK; d < end; d += 2) {
        floats even, odd;
        for (int l = 0; l < LANES; l++) {
            even[l] = query[l] ? query[l][d] * scale : 0;
            odd[l] = query[l] ? query[l][d + 1] * scale : 0;
        }
        words both = paired(even, odd);
        memcpy(queries + d * LANES, &both, sizeof both);
    }
}

static void round_row(factor *to, const float *x, int count) {
    int d = 0;
    for (; d + LANES <= count; d += LANES) to_bf16(to + d, load(x + d));
    for (; d < count; d++) to[d] = one_number(x[d]);
}

void key_from_floats(const memory *m, int64_t t, const float *x) { round_row(m->key + t * APART(m->dim), x, m->dim); }

void keys_from_bf16(const memory *m, const uint16_t *x, int count) {
    for (int64_t t = 0; t < count; t++)
        memcpy(m->key + t * APART(m->dim), x + t * m->dim, sizeof(factor) * (size_t)m->dim);
}

void key_from_int8(const memory *m, int64_t t, const int8_t *x, const float *scale) {
    factor *to = m->key + t * APART(m->dim);
    for (int d = 0; d < m->dim; d++) to[d] = one_number((float)x[d] * scale[d / CHUNK]);
}

void value_from_floats(const memory *m, int64_t t, const float *x) {
    round_row(m->value + t * m->value_stride, x, m->value_dim);
}

void values_from_keys(const memory *m, int count) {
    (void)m, (void)count; // they are the same
}

// Of how many pairs one comes with something that is fetched.
#define FETCH 4

INLINE __m512bh pair(const uint16_t *from) {
    int32_t both;
    memcpy(&both, from, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

INLINE void times(const int some, const factor *queries, int dim, const factor *rows, int64_t stride,
                  floats (*out)[VECTORS], ahead *soon) {
    __m512 sum[16];
#pragma GCC unroll 16
    for (int t = 0; t < some; t++) sum[t] = _mm512_setzero_ps();
    for (int d = 0; d < dim; d += 2) {
        __m512bh q = (__m512bh)_mm512_loadu_si512(queries + d * LANES);
        if (d % (2 * FETCH) == 0) ahead_fetch(soon);
#pragma GCC unroll 16
        for (int t = 0; t < some; t++) sum[t] = _mm512_dpbf16_ps(sum[t], q, pair(rows + t * stride + d));
    }
#pragma GCC unroll 16
    for (int t = 0; t < some; t++) out[t][0] = (floats)sum[t];
}

void scores(const factor *queries, const memory *m, int64_t first, int count, floats (*out)[VECTORS], ahead *soon) {
    int64_t stride = APART(m->dim);
    const factor *rows = m->key + first * stride;
    int t = 0;
    for (; t + 16 <= count; t += 16) times(16, queries, m->dim, rows + t * stride, stride, out + t, soon);
    for (; t + 4 <= count; t += 4) times(4, queries, m->dim, rows + t * stride, stride, out + t, soon);
    for (; t < count; t++) times(1, queries, m->dim, rows + t * stride, stride, out + t, soon);
}

static void mix(attention *a, const memory *m, int64_t first, int keys, floats (*weights)[VECTORS],
                const float *shrink, const float *grow) {
    uint32_t both[KEYS / 2][LANES];
    int pairs = (keys + 1) / 2;
    int64_t stride = m->value_stride;
    for (int t = 0; t < pairs; t++) {
        words two = paired(weights[2 * t][0], 2 * t + 1 < keys ? weights[2 * t + 1][0] : (floats){0});
        memcpy(both[t], &two, sizeof two);
    }
    for (int d = 0; d < a->value_dim; d += LANES) {
        const factor *value = m->value + first * stride + d;
        __m512 sum[LANES];
#pragma GCC unroll 16
        for (int l = 0; l < LANES; l++) sum[l] = _mm512_setzero_ps();
        for (int t = 0; t < pairs; t++) {
            if (t % FETCH == 0) ahead_fetch(a->soon);
            const factor *row = value + 2 * t * stride;
            const factor *next = 2 * t + 1 < keys ? row + stride : row;
            __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)row));
            __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)next));
            __m512bh v = (__m512bh)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
#pragma GCC unroll 16
            for (int l = 0; l < LANES; l++)
                sum[l] = _mm512_dpbf16_ps(sum[l], v, (__m512bh)_mm512_set1_epi32((int32_t)both[t][l]));
        }
#pragma GCC unroll 16
        for (int l = 0; l < LANES; l++) {
            float *out = a->out + l * a->value_dim + d;
            store(out, load(out) * shrink[l] + (floats)sum[l] * grow[l]);
        }
    }
}

static void in_order(float *x, int count) {
    (void)x, (void)count; // they always are
}
