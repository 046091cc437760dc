#include "int4.h"

#include <math.h>

#include "simd.h"

int8_rows take_int8_rows(room *r, int64_t tokens, int64_t columns) {
    int8_rows rows = {.columns = columns};
    rows.q = take(r, tokens * columns);
    rows.scale = take(r, tokens * columns / GROUP * (int64_t)sizeof(float));
    rows.minus8 = take(r, tokens * columns / GROUP * (int64_t)sizeof(int32_t));
    return rows;
}

void int8_quantize_row(const float *x, int64_t count, int8_rows to, int64_t token) {
    int64_t groups = to.columns / GROUP;
    for (int64_t g = 0; g < groups; g++) {
        float part[GROUP] = {0};
        int64_t some = count - g * GROUP < GROUP ? count - g * GROUP : GROUP;
        if (some > 0) memcpy(part, x + g * GROUP, sizeof(float) * (size_t)some);
        floats largest = {0};
        for (int i = 0; i < GROUP; i += LANES) largest = larger(largest, larger(load(part + i), -load(part + i)));
        float most = largest_of(largest), inverse = most > 0 ? 127.0f / most : 0;
        ints sum = {0};
        for (int i = 0; i < GROUP; i += LANES) {
            ints whole = __builtin_convertvector(rounded(load(part + i) * inverse), ints);
            bytes q = __builtin_convertvector(whole, bytes);
            memcpy(to.q + token * to.columns + g * GROUP + i, &q, sizeof q);
            sum += whole;
        }
        int32_t total = 0;
        for (int l = 0; l < LANES; l++) total += sum[l];
        to.scale[token * groups + g] = most / 127.0f;
        to.minus8[token * groups + g] = -8 * total;
    }
}

void rms_norm_row(const float *x, const float *weight, int64_t count, float eps, float *to) {
    floats squares = {0};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        floats v = load(x + i);
        squares += v * v;
    }
    float sum = sum_of(squares);
    for (; i < count; i++) sum += x[i] * x[i];
    float scale = 1.0f / sqrtf(sum / (float)count + eps);
    for (i = 0; i < count; i++) to[i] = x[i] * scale * weight[i];
}

#if KIMI_AVX512

INLINE __m512i four(const int8_t *from) {
    int32_t bytes;
    memcpy(&bytes, from, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

INLINE void times(const int tokens, const uint8_t *w, int64_t blocks, const int8_rows *x, int64_t first,
                  float out[8][ROWS]) {
    int64_t columns = x->columns, groups = columns / GROUP;
    const int8_t *q = x->q + first * columns;
    const float *scale = x->scale + first * groups;
    const int32_t *minus8 = x->minus8 + first * groups;
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512 sum[8];
    for (int m = 0; m < tokens; m++) sum[m] = _mm512_setzero_ps();
    for (int64_t b = 0; b < blocks; b++, w += BLOCK_BYTES) {
        for (int g = 0; g < GROUPS; g++) {
            _mm_prefetch((const char *)w + 4 * BLOCK_BYTES + 256 * g, _MM_HINT_T0);
            _mm_prefetch((const char *)w + 4 * BLOCK_BYTES + 256 * g + 64, _MM_HINT_T0);
            _mm_prefetch((const char *)w + 4 * BLOCK_BYTES + 256 * g + 128, _MM_HINT_T0);
            _mm_prefetch((const char *)w + 4 * BLOCK_BYTES + 256 * g + 192, _MM_HINT_T0);
            __m128i bytes = _mm_loadu_si128((const __m128i *)(w + ROWS * g));
            __m512 weight_scale = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
            const uint8_t *at = w + GROUPS * ROWS + 256 * g;
            __m512i quad[8];
            for (int j = 0; j < 4; j++) {
                __m512i both = _mm512_loadu_si512(at + 64 * j);
                quad[j] = _mm512_and_si512(both, nibble);
                quad[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
            }
            int64_t group = b * GROUPS + g;
            for (int m = 0; m < tokens; m++) {
                const int8_t *a = q + m * columns + group * GROUP;
                __m512i dot = _mm512_set1_epi32(minus8[m * groups + group]);
                for (int j = 0; j < 8; j++) dot = _mm512_dpbusd_epi32(dot, quad[j], four(a + 4 * j));
                __m512 both = _mm512_mul_ps(weight_scale, _mm512_set1_ps(scale[m * groups + group]));
                sum[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), both, sum[m]);
            }
        }
    }
    for (int m = 0; m < tokens; m++) _mm512_storeu_ps(out[m], sum[m]);
}

#elif KIMI_AVX2

INLINE __m256i four(const int8_t *from) {
    int32_t bytes;
    memcpy(&bytes, from, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

INLINE void times(const int tokens, const uint8_t *w, int64_t blocks, const int8_rows *x, int64_t first,
                  float out[8][ROWS]) {
    int64_t columns = x->columns, groups = columns / GROUP;
    const int8_t *q = x->q + first * columns;
    const float *scale = x->scale + first * groups;
    const int32_t *minus8 = x->minus8 + first * groups;
    const __m256i nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256 sum[8][2];
    for (int m = 0; m < tokens; m++) sum[m][0] = sum[m][1] = _mm256_setzero_ps();
    for (int64_t b = 0; b < blocks; b++, w += BLOCK_BYTES) {
        for (int g = 0; g < GROUPS; g++) {
            int64_t group = b * GROUPS + g;
            for (int half = 0; half < 2; half++) {
                __m128i bytes = _mm_loadl_epi64((const __m128i *)(w + ROWS * g + 8 * half));
                __m256 weight_scale = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
                const uint8_t *at = w + GROUPS * ROWS + 256 * g + 32 * half;
                __m256i quad[8];
                for (int j = 0; j < 4; j++) {
                    __m256i both = _mm256_loadu_si256((const __m256i *)(at + 64 * j));
                    quad[j] = _mm256_and_si256(both, nibble);
                    quad[j + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
                }
                for (int m = 0; m < tokens; m++) {
                    const int8_t *a = q + m * columns + group * GROUP;
                    // 16 products of at most 15 · 127 fit into 16 bits, so nothing saturates here
                    __m256i pairs = _mm256_maddubs_epi16(quad[0], four(a));
                    for (int j = 1; j < 8; j++)
                        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(quad[j], four(a + 4 * j)));
                    __m256i dot = _mm256_add_epi32(_mm256_madd_epi16(pairs, ones),
                                                   _mm256_set1_epi32(minus8[m * groups + group]));
                    __m256 both = _mm256_mul_ps(weight_scale, _mm256_set1_ps(scale[m * groups + group]));
                    sum[m][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), both, sum[m][half]);
                }
            }
        }
    }
    for (int m = 0; m < tokens; m++) memcpy(out[m], sum[m], sizeof out[m]);
}

#else

INLINE void times(const int tokens, const uint8_t *w, int64_t blocks, const int8_rows *x, int64_t first,
                  float out[8][ROWS]) {
    int64_t columns = x->columns, groups = columns / GROUP;
    for (int m = 0; m < tokens; m++) memset(out[m], 0, sizeof out[m]);
    for (int64_t b = 0; b < blocks; b++, w += BLOCK_BYTES) {
        for (int g = 0; g < GROUPS; g++) {
            int64_t group = b * GROUPS + g;
            const uint8_t *at = w + GROUPS * ROWS + 256 * g;
            for (int m = 0; m < tokens; m++) {
                const int8_t *a = x->q + (first + m) * columns + group * GROUP;
                int32_t dot[ROWS];
                for (int r = 0; r < ROWS; r++) dot[r] = x->minus8[(first + m) * groups + group];
                for (int j = 0; j < 4; j++)
                    for (int r = 0; r < ROWS; r++)
                        for (int i = 0; i < 4; i++) {
                            int both = at[64 * j + 4 * r + i];
                            dot[r] += (both & 15) * a[4 * j + i] + (both >> 4) * a[16 + 4 * j + i];
                        }
                float scale = x->scale[(first + m) * groups + group];
                for (int r = 0; r < ROWS; r++)
                    out[m][r] += (float)dot[r] * ((float)(int8_t)w[ROWS * g + r] * scale);
            }
        }
    }
}

#endif

void int4_times_int8(const int4_matrix *w, int64_t block_row, const int8_rows *x, int64_t first, int64_t tokens,
                     float *y, int64_t stride) {
    int64_t blocks = w->columns / COLUMNS;
    const uint8_t *at = w->blocks + block_row * blocks * BLOCK_BYTES;
    const float *row_scale = w->row_scale + block_row * ROWS;
    float out[8][ROWS];
    int64_t m = 0;
    while (m < tokens) {
        int64_t left = tokens - m;
        int some = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        switch (some) {
            case 8: times(8, at, blocks, x, first + m, out); break;
            case 4: times(4, at, blocks, x, first + m, out); break;
            case 2: times(2, at, blocks, x, first + m, out); break;
            default: times(1, at, blocks, x, first + m, out);
        }
        for (int i = 0; i < some; i++)
            for (int r = 0; r < ROWS; r += LANES)
                store(y + (m + i) * stride + r, load(out[i] + r) * load(row_scale + r));
        m += some;
    }
}

void int4_decode(const int4_matrix *w, int64_t block_row, float *to) {
    int64_t blocks = w->columns / COLUMNS;
    const uint8_t *at = w->blocks + block_row * blocks * BLOCK_BYTES;
    for (int64_t b = 0; b < blocks; b++, at += BLOCK_BYTES)
        for (int g = 0; g < GROUPS; g++)
            for (int r = 0; r < ROWS; r++) {
                float scale = (float)(int8_t)at[ROWS * g + r] * w->row_scale[block_row * ROWS + r];
                float *row = to + r * w->columns + b * COLUMNS + g * GROUP;
                const uint8_t *from = at + GROUPS * ROWS + 256 * g + 4 * r;
                for (int c = 0; c < GROUP / 2; c++) {
                    int both = from[64 * (c / 4) + c % 4];
                    row[c] = (float)((both & 15) - 8) * scale;
                    row[c + GROUP / 2] = (float)((both >> 4) - 8) * scale;
                }
            }
}

int4_matrix int4_behind(int4_matrix w, int64_t n) {
    w.blocks += n * (w.rows / ROWS) * (w.columns / COLUMNS) * BLOCK_BYTES;
    w.row_scale += n * w.rows;
    return w;
}

// Tokens whose activations stay in the cache near the core while all rows pass.
#define TILE 64

void int4_share(const int4_matrix *w, share rows, const int8_rows *x, int64_t tokens, float *y, int64_t stride) {
    for (int64_t first = 0; first < tokens; first += TILE) {
        int64_t some = tokens - first < TILE ? tokens - first : TILE;
        for (int64_t b = rows.from; b < rows.to; b++)
            int4_times_int8(w, b, x, first, some, y + first * stride + b * ROWS, stride);
    }
}

typedef struct {
    pool *p;
    const float *x, *norm;
    int64_t count, tokens;
    float eps;
    const int4_matrix *matrices;
    int matrix_count;
    float *const *ys;
    int8_rows x8;
    float *normed; // [threads, count]
} linear_job;

static void linear_work(void *context, int thread, int threads) {
    linear_job *j = context;
    share mine = share_of(j->tokens, thread, threads);
    float *normed = j->normed + thread * j->count;
    for (int64_t m = mine.from; m < mine.to; m++) {
        const float *x = j->x + m * j->count;
        if (j->norm) {
            rms_norm_row(x, j->norm, j->count, j->eps, normed);
            x = normed;
        }
        int8_quantize_row(x, j->count, j->x8, m);
    }
    pool_barrier(j->p);
    for (int i = 0; i < j->matrix_count; i++) {
        const int4_matrix *w = j->matrices + i;
        int4_share(w, share_of(w->rows / ROWS, thread, threads), &j->x8, j->tokens, j->ys[i], w->rows);
    }
}

void int4_linear(pool *p, const float *x, int64_t count, int64_t tokens, const float *norm, float eps,
                 const int4_matrix *matrices, int matrix_count, float *const *ys) {
    linear_job j = {p, x, norm, count, tokens, eps, matrices, matrix_count, ys, {0}, NULL};
    room r = {0};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) r = (room){pool_room(p, r.used), 0};
        j.x8 = take_int8_rows(&r, tokens, matrices[0].columns);
        j.normed = take(&r, pool_threads(p) * count * (int64_t)sizeof(float));
    }
    pool_run(p, linear_work, &j);
}
