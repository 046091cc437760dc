// attention.c in whole numbers, by AVX2.
//
// Two numbers of 16 bits that lie together are multiplied and added in one go. Sums of a chunk of 128, or of a block of
// 64 keys, stay below 2^31: 128 · 4095 · 4095, and 64 · 8191 · 4095.

#define MOST 4095
#define MOST_WEIGHT 8191

// Values lie in tiles of sixteen numbers, pair by pair of keys: first those at even places, then those at odd ones, as
// they come from bfloat16. A last tile of eight has them in their order.
#define TILE 16

// Number d of value t, which lies beside that of its neighbour.
INLINE factor *value_at(const memory *m, int64_t t, int d) {
    int place = d / TILE * TILE + TILE <= m->value_dim ? d % 2 * (TILE / 2) + d % TILE / 2 : d % TILE;
    return m->value + d / TILE * m->value_stride + (t / 2 * TILE + place) * 2;
}

int64_t queries_bytes(int dim) {
    return (int64_t)QUERIES * (dim * (int64_t)sizeof(factor) + CHUNKS(dim) * (int64_t)sizeof(float));
}

INLINE float *query_scale(const factor *queries, int dim, int chunk) {
    return (float *)(queries + QUERIES * dim) + chunk * QUERIES;
}

INLINE int chunk_end(int dim, int chunk) { return (chunk + 1) * CHUNK < dim ? (chunk + 1) * CHUNK : dim; }

static float most_of(const float *x, int count) {
    floats most = {0};
    int d = 0;
    for (; d + LANES <= count; d += LANES) most = larger(most, larger(load(x + d), -load(x + d)));
    float all = largest_of(most);
    for (; d < count; d++) all = fabsf(x[d]) > all ? fabsf(x[d]) : all;
    return all;
}

// [-MOST, MOST]
INLINE factor whole(float x) { return (factor)_mm_cvtss_si32(_mm_set_ss(x)); }

// Rounded, sixteen at a time as long as there are so many.
static void whole_row(factor *to, const float *x, int count, float inverse) {
    __m256 by = _mm256_set1_ps(inverse);
    int d = 0;
    for (; d + 16 <= count; d += 16) {
        __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + d), by));
        __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + d + 8), by));
        // what is packed comes in the order low, high, low, high
        __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
        _mm256_storeu_si256((__m256i *)(to + d), both);
    }
    for (; d < count; d++) to[d] = whole(x[d] * inverse);
}

static float chunk_from_floats(factor *to, const float *x, int count) {
    float most = most_of(x, count);
    whole_row(to, x, count, most > 0 ? MOST / most : 0);
    return most / MOST;
}

void queries_fill(factor *queries, const float *const query[QUERIES], float scale, int dim, int from, int to) {
    for (int c = from; c < to; c++) {
        int first = c * CHUNK, count = chunk_end(dim, c) - first;
        factor row[QUERIES][CHUNK] = {0};
        for (int i = 0; i < QUERIES; i++)
            query_scale(queries, dim, c)[i] = query[i] ? chunk_from_floats(row[i], query[i] + first, count) * scale : 0;
        for (int d = 0; d < count; d += 2)
            for (int i = 0; i < QUERIES; i++) memcpy(queries + (first + d) * QUERIES + 2 * i, row[i] + d, 2 * sizeof(factor));
    }
}

void key_from_floats(const memory *m, int64_t t, const float *x) {
    factor *to = m->key + t * APART(m->dim);
    for (int c = 0; c < CHUNKS(m->dim); c++) {
        int d = c * CHUNK;
        m->key_scale[t * CHUNKS(m->dim) + c] = chunk_from_floats(to + d, x + d, chunk_end(m->dim, c) - d);
    }
}

INLINE uint16_t largest_of_sixteen(__m256i x) {
    __m128i eight = _mm_max_epu16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    // what the processor finds is the smallest
    return (uint16_t)~_mm_extract_epi16(_mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(-1))), 0);
}

// The largest of a chunk of `count` numbers without their signs, which have the order of their bits.
INLINE float most_of_bf16(const int count, const uint16_t *x) {
    __m256i largest = _mm256_setzero_si256();
    int d = 0;
#pragma GCC unroll 8
    for (; d + 16 <= count; d += 16) {
        __m256i some = _mm256_loadu_si256((const __m256i *)(x + d));
        largest = _mm256_max_epu16(largest, _mm256_and_si256(some, _mm256_set1_epi16(0x7fff)));
    }
    uint16_t bits = largest_of_sixteen(largest);
    for (; d < count; d++) bits = (x[d] & 0x7fff) > bits ? x[d] & 0x7fff : bits;
    return float_of_bf16(bits);
}

// Eight floats that become whole numbers, which are then the lower 16 bits of what this returns.
INLINE __m256i lower_whole(__m256i x, __m256 inverse) {
    return (__m256i)_mm256_fmadd_ps((__m256)x, inverse, _mm256_set1_ps(12582912.0f)); // 1.5 · 2^23
}

// The lower 16 bits of each, the second's behind the first's.
INLINE __m256i lower_halves(__m256i first, __m256i second) {
    return _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa);
}

// Some numbers of a chunk of two keys, and of their values if there are any. bfloat16 is the upper half of a float.
INLINE void some_from_bf16(int count, const uint16_t *x, const uint16_t *next, float inverse, float next_inverse,
                           factor *key, factor *next_key, factor *values, int64_t tile) {
    __m256 by = _mm256_set1_ps(inverse), next_by = _mm256_set1_ps(next_inverse);
    __m256i upper = _mm256_set1_epi32((int)0xffff0000);
    int d = 0;
    for (; d + 16 <= count; d += 16, values += tile) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(x + d)), b = _mm256_loadu_si256((const __m256i *)(next + d));
        __m256i a_even = lower_whole(_mm256_slli_epi32(a, 16), by);
        __m256i a_odd = lower_whole(_mm256_and_si256(a, upper), by);
        __m256i b_even = lower_whole(_mm256_slli_epi32(b, 16), next_by);
        __m256i b_odd = lower_whole(_mm256_and_si256(b, upper), next_by);
        _mm256_storeu_si256((__m256i *)(key + d), lower_halves(a_even, a_odd));
        _mm256_storeu_si256((__m256i *)(next_key + d), lower_halves(b_even, b_odd));
        if (!tile) continue;
        _mm256_storeu_si256((__m256i *)values, lower_halves(a_even, b_even));
        _mm256_storeu_si256((__m256i *)(values + TILE), lower_halves(a_odd, b_odd));
    }
    for (; d < count; d++) {
        key[d] = whole(float_of_bf16(x[d]) * inverse);
        next_key[d] = whole(float_of_bf16(next[d]) * next_inverse);
    }
}

// Of each chunk of a key.
static void scales_of_bf16(int dim, const uint16_t *x, float *scale, float *inverse) {
    for (int c = 0; c < CHUNKS(dim); c++) {
        int d = c * CHUNK, some = chunk_end(dim, c) - d;
        float most = some == CHUNK ? most_of_bf16(CHUNK, x + d) : most_of_bf16(some, x + d);
        inverse[c] = most > 0 ? MOST / most : 0;
        scale[c] = most * (1.0f / MOST);
    }
}

void keys_from_bf16(const memory *m, const uint16_t *x, int count) {
    int chunks = CHUNKS(m->dim), valued = m->shared ? m->value_dim : 0;
    float *scale = m->key_scale, inverse[(count + 1) * chunks];
    for (int t = -2; t < count; t += 2) {
        // before they are needed: much would wait for them
        for (int i = t + 2; i < t + 4 && i < count; i++)
            scales_of_bf16(m->dim, x + (int64_t)i * m->dim, scale + i * chunks, inverse + i * chunks);
        if (t < 0) continue;
        // the last of an odd number has itself beside it
        int two = t + 1 < count;
        const uint16_t *row = x + (int64_t)t * m->dim, *next = row + two * m->dim;
        factor *key = m->key + t * APART(m->dim), *next_key = key + two * APART(m->dim);
        for (int c = 0; c < chunks; c++) {
            int d = c * CHUNK, end = chunk_end(m->dim, c), with = valued < d ? d : valued < end ? valued : end;
            float by = inverse[t * chunks + c], next_by = inverse[(t + two) * chunks + c];
            if (with > d)
                some_from_bf16(with - d, row + d, next + d, by, next_by, key + d, next_key + d,
                               value_at(m, t, d), m->value_stride);
            if (end > with)
                some_from_bf16(end - with, row + with, next + with, by, next_by, key + with, next_key + with, NULL, 0);
        }
    }
}

void key_from_int8(const memory *m, int64_t t, const int8_t *x, const float *scale) {
    factor *to = m->key + t * APART(m->dim);
    for (int d = 0; d < m->dim; d++) to[d] = x[d];
    memcpy(m->key_scale + t * CHUNKS(m->dim), scale, sizeof(float) * CHUNKS(m->dim));
}

void value_from_floats(const memory *m, int64_t t, const float *x) {
    factor chunk[CHUNK];
    for (int c = 0; c < CHUNKS(m->value_dim); c++) {
        int d = c * CHUNK, count = chunk_end(m->value_dim, c) - d;
        m->value_scale[t * CHUNKS(m->value_dim) + c] = chunk_from_floats(chunk, x + d, count);
        for (int i = 0; i < count; i++) value_at(m, t, d + i)[t % 2] = chunk[i];
    }
}

void values_from_keys(const memory *m, int count) {
    for (int t = 0; t < count; t += 2) {
        const factor *key = m->key + t * APART(m->dim), *next = t + 1 < count ? key + APART(m->dim) : key;
        for (int d = 0; d < m->value_dim; d += TILE) {
            __m256i a = _mm256_loadu_si256((const __m256i *)(key + d)), b = _mm256_loadu_si256((const __m256i *)(next + d));
            __m256i *to = (__m256i *)value_at(m, t, d);
            _mm256_storeu_si256(to, lower_halves(a, b));
            _mm256_storeu_si256(to + 1, _mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, 0xaa));
        }
    }
}

INLINE __m256i pair_of(const void *from) { return (__m256i)_mm256_broadcast_ss(from); }

// Of how many pairs one comes with something that is fetched.
#define FETCH 16

// Adds the products of a pair of each of 16 queries and one key.
#define ADD(sum, low, high, k)                                                                                         \
    sum##_low = _mm256_add_epi32(sum##_low, _mm256_madd_epi16(low, k));                                                \
    KEEP(sum##_low);                                                                                                   \
    sum##_high = _mm256_add_epi32(sum##_high, _mm256_madd_epi16(high, k));                                             \
    KEEP(sum##_high)

// Their sums fill the registers.
static void times(const factor *queries, const factor *const key[TOGETHER_KEYS], int from, int end,
                  __m256i sums[TOGETHER_KEYS][VECTORS], ahead *soon) {
    const factor *k0 = key[0], *k1 = key[1], *k2 = key[2], *k3 = key[3], *k4 = key[4], *k5 = key[5];
    const __m256i *q = (const __m256i *)(queries + from * QUERIES);
    __m256i none = _mm256_setzero_si256(), s0_low = none, s0_high = none, s1_low = none, s1_high = none;
    __m256i s2_low = none, s2_high = none, s3_low = none, s3_high = none;
    __m256i s4_low = none, s4_high = none, s5_low = none, s5_high = none;
    for (int d = from, some; d < end; d = some) {
        some = end - d < 2 * FETCH ? end : d + 2 * FETCH;
        ahead_fetch(soon);
        for (int i = d; i < some; i += 2, q += 2) {
            __m256i low = _mm256_loadu_si256(q), high = _mm256_loadu_si256(q + 1);
            ADD(s0, low, high, pair_of(k0 + i));
            ADD(s1, low, high, pair_of(k1 + i));
            ADD(s2, low, high, pair_of(k2 + i));
            ADD(s3, low, high, pair_of(k3 + i));
            ADD(s4, low, high, pair_of(k4 + i));
            ADD(s5, low, high, pair_of(k5 + i));
        }
    }
    sums[0][0] = s0_low, sums[0][1] = s0_high, sums[1][0] = s1_low, sums[1][1] = s1_high;
    sums[2][0] = s2_low, sums[2][1] = s2_high, sums[3][0] = s3_low, sums[3][1] = s3_high;
    sums[4][0] = s4_low, sums[4][1] = s4_high, sums[5][0] = s5_low, sums[5][1] = s5_high;
}

void scores(const factor *queries, const memory *m, int64_t first, int count, floats (*out)[VECTORS], ahead *soon) {
    for (int c = 0; c < CHUNKS(m->dim); c++) {
        const float *scale = query_scale(queries, m->dim, c);
        for (int t = 0; t < count; t += TOGETHER_KEYS) {
            const factor *key[TOGETHER_KEYS];
            __m256i sums[TOGETHER_KEYS][VECTORS];
            int some = count - t < TOGETHER_KEYS ? count - t : TOGETHER_KEYS;
            // behind the last key comes that one again
            for (int i = 0; i < TOGETHER_KEYS; i++) key[i] = m->key + (first + t + (i < some ? i : some - 1)) * APART(m->dim);
            times(queries, key, c * CHUNK, chunk_end(m->dim, c), sums, soon);
            for (int i = 0; i < some; i++) {
                float of_key = m->key_scale[(first + t + i) * CHUNKS(m->dim) + c];
                for (int v = 0; v < VECTORS; v++) {
                    floats part = (floats)_mm256_cvtepi32_ps(sums[i][v]) * load(scale + v * LANES) * of_key;
                    out[t + i][v] = c ? out[t + i][v] + part : part;
                }
            }
        }
    }
}

// out of four queries, one or two vectors of it. `weights` are pairs of keys, [pairs, QUERIES, 2].
INLINE void mix_some(const int wide, const attention *a, float *out, const factor *weights, const factor *value,
                     int pairs, const float *shrink, const float *grow) {
    __m256i none = _mm256_setzero_si256(), s0_low = none, s0_high = none, s1_low = none, s1_high = none;
    __m256i s2_low = none, s2_high = none, s3_low = none, s3_high = none;
    for (int t = 0, some; t < pairs; t = some) {
        some = pairs - t < FETCH ? pairs : t + FETCH;
        ahead_fetch(a->soon);
#pragma GCC unroll 4
        for (int i = t; i < some; i++, value += 2 * TILE, weights += 2 * QUERIES) {
            const __m256i *at = (const __m256i *)value;
            __m256i low = _mm256_loadu_si256(at), high = wide == 2 ? _mm256_loadu_si256(at + 1) : none;
            ADD(s0, low, high, pair_of(weights));
            ADD(s1, low, high, pair_of(weights + 2));
            ADD(s2, low, high, pair_of(weights + 4));
            ADD(s3, low, high, pair_of(weights + 6));
        }
    }
    __m256i sums[4][2] = {{s0_low, s0_high}, {s1_low, s1_high}, {s2_low, s2_high}, {s3_low, s3_high}};
    for (int i = 0; i < 4; i++)
        for (int v = 0; v < wide; v++) {
            float *to = out + i * a->value_dim + v * LANES;
            store(to, load(to) * shrink[i] + (floats)_mm256_cvtepi32_ps(sums[i][v]) * grow[i]);
        }
}

// Weights times what values are scaled with, in pairs as [pairs, QUERIES, 2], each query's as large as they may be.
// `back` gets what sums of products are to be scaled with. Keys that a query does not see change nothing of it.
static void weigh(const memory *m, int64_t first, int keys, int chunk, floats (*weights)[VECTORS], factor *to,
                  floats back[VECTORS]) {
    int apart = CHUNKS(m->shared ? m->dim : m->value_dim);
    const float *scale = m->value_scale + first * apart + chunk;
    for (int v = 0; v < VECTORS; v++) {
        floats most = {0};
        for (int t = 0; t < keys; t++) most = larger(most, weights[t][v] * scale[t * apart]);
        floats inverse = blend(most > splat(0), MOST_WEIGHT / most, (floats){0});
        back[v] = most / MOST_WEIGHT;
        for (int t = 0; t < keys; t += 2) {
            __m256i even = _mm256_cvtps_epi32((__m256)(weights[t][v] * scale[t * apart] * inverse)), odd = {0};
            if (t + 1 < keys) odd = _mm256_cvtps_epi32((__m256)(weights[t + 1][v] * scale[(t + 1) * apart] * inverse));
            __m256i both = _mm256_or_si256(even, _mm256_slli_epi32(odd, 16));
            _mm256_storeu_si256((__m256i *)(to + (t / 2 * QUERIES + v * LANES) * 2), both);
        }
    }
}

static void mix(attention *a, const memory *m, int64_t first, int keys, floats (*weights)[VECTORS],
                const float *shrink, const float *grow) {
    factor pairs[KEYS * QUERIES];
    floats scaled[VECTORS];
    for (int c = 0; c < CHUNKS(a->value_dim); c++) {
        weigh(m, first, keys, c, weights, pairs, scaled);
        for (int v = 0; v < VECTORS; v++) scaled[v] *= load(grow + v * LANES);
        for (int d = c * CHUNK, end = chunk_end(a->value_dim, c), wide; d < end; d += wide * LANES) {
            const factor *value = m->value + d / TILE * m->value_stride + first * TILE;
            wide = end - d >= 2 * LANES ? 2 : 1;
            for (int i = 0; i < QUERIES; i += 4) {
                float *out = a->out + i * a->value_dim + d;
                const float *more = (const float *)scaled + i;
                if (wide == 2)
                    mix_some(2, a, out, pairs + 2 * i, value, (keys + 1) / 2, shrink + i, more);
                else
                    mix_some(1, a, out, pairs + 2 * i, value, (keys + 1) / 2, shrink + i, more);
            }
        }
    }
}

// Sums of values lie as these do.
static void in_order(float *x, int count) {
    for (; count >= TILE; count -= TILE, x += TILE) {
        __m256 even = _mm256_loadu_ps(x), odd = _mm256_loadu_ps(x + LANES);
        __m256 low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
        _mm256_storeu_ps(x, _mm256_permute2f128_ps(low, high, 0x20));
        _mm256_storeu_ps(x + LANES, _mm256_permute2f128_ps(low, high, 0x31));
    }
}
