#include "int4.h"

#include <math.h>

#include "simd.h"

int8_rows take_int8_rows(room *r, int64_t tokens, int64_t columns) {
    int8_rows rows = {.tokens = tokens, .columns = columns};
    rows.q = take(r, tokens * columns);
    rows.scale = take(r, tokens * columns / COLUMNS * (int64_t)sizeof(float));
    rows.start = take(r, tokens * columns / GROUP * (int64_t)sizeof(int32_t));
    return rows;
}

int8_rows int8_part(int8_rows of, int64_t first, int64_t tokens) {
    of.q += first * of.columns;
    of.scale += first * of.columns / COLUMNS;
    of.start += first * of.columns / GROUP;
    of.tokens = tokens;
    return of;
}

// Tokens of the tile that begins at `first`.
INLINE int64_t tile_at(int64_t tokens, int64_t first) {
    int64_t left = tokens - first, width = TOGETHER;
    while (width > left) width /= 2;
    return width;
}

// Where a token's first number of q lies is `first` tokens and `place` of `width` in.
typedef struct {
    int64_t first, width, place;
} tile;

static tile tile_of(int64_t tokens, int64_t token) {
    tile t = {token / TOGETHER * TOGETHER, 0, 0};
    for (;; t.first += t.width) {
        t.width = tile_at(tokens, t.first);
        t.place = token - t.first;
        if (t.place < t.width) return t;
    }
}

// What a sum of products with q - 8 begins with when it is made of products with q: -8 · sum of the group.
static int32_t start_of(const int8_t q[GROUP]) {
    int32_t sum[2] = {0};
    for (int i = 0; i < GROUP; i++) sum[i / 2 % 2] -= 8 * q[i];
#if KIMI_AVX2
    // there, a sum lies in two halves of 16 bits, each of which goes over but comes back
    return (int32_t)((uint32_t)(uint16_t)sum[0] | (uint32_t)sum[1] << 16);
#else
    return sum[0] + sum[1];
#endif
}

void int8_quantize_block(const float *x, int8_rows to, int64_t token, int64_t block) {
    floats largest = {0};
    for (int i = 0; i < COLUMNS; i += LANES) largest = larger(largest, larger(load(x + i), -load(x + i)));
    float most = largest_of(largest), inverse = most > 0 ? 127.0f / most : 0;
    int8_t q[COLUMNS];
    for (int i = 0; i < COLUMNS; i += LANES) {
        ints whole = __builtin_convertvector(rounded(load(x + i) * inverse), ints);
        bytes eight = __builtin_convertvector(whole, bytes);
        memcpy(q + i, &eight, sizeof eight);
    }
    tile t = tile_of(to.tokens, token);
    int8_t *at = to.q + t.first * to.columns + block * COLUMNS * t.width + 4 * t.place;
    for (int i = 0; i < COLUMNS; i += 4) memcpy(at + i * t.width, q + i, 4);
    to.scale[t.first * to.columns / COLUMNS + block * t.width + t.place] = most / 127.0f;
    int32_t *start = to.start + t.first * to.columns / GROUP + block * GROUPS * t.width + t.place;
    for (int g = 0; g < GROUPS; g++) start[g * t.width] = start_of(q + g * GROUP);
}

void int8_quantize_part(const float *x, int64_t count, int8_rows to, int64_t token, int64_t block) {
    int64_t some = count - block * COLUMNS;
    if (some >= COLUMNS) {
        int8_quantize_block(x + block * COLUMNS, to, token, block);
        return;
    }
    float part[COLUMNS] = {0};
    if (some > 0) memcpy(part, x + block * COLUMNS, sizeof(float) * (size_t)some);
    int8_quantize_block(part, to, token, block);
}

void int8_quantize_row(const float *x, int64_t count, int8_rows to, int64_t token) {
    for (int64_t b = 0; b < to.columns / COLUMNS; b++) int8_quantize_part(x, count, to, token, b);
}

void int8_copy_row(int8_rows to, int64_t token, int8_rows from, int64_t of) {
    tile t = tile_of(to.tokens, token), f = tile_of(from.tokens, of);
    int64_t columns = from.columns, blocks = columns / COLUMNS, groups = columns / GROUP;
    const int8_t *q = from.q + f.first * columns + 4 * f.place;
    int8_t *at = to.q + t.first * columns + 4 * t.place;
    for (int64_t i = 0; i < columns; i += 4) memcpy(at + i * t.width, q + i * f.width, 4);
    for (int64_t b = 0; b < blocks; b++)
        to.scale[t.first * blocks + b * t.width + t.place] = from.scale[f.first * blocks + b * f.width + f.place];
    for (int64_t g = 0; g < groups; g++)
        to.start[t.first * groups + g * t.width + t.place] = from.start[f.first * groups + g * f.width + f.place];
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

// Blocks that are fetched before they are needed.
#define AHEAD 8

INLINE void fetch(const uint8_t *line) { __builtin_prefetch(line, 0, 3); }

// Of 16 rows times some tokens, the sum over 128 columns is a whole number below 2^24: scales of weights are whole, and
// a token has one scale for all of a block.

#if KIMI_AVX512

INLINE __m512i four(const int8_t *from) {
    int32_t bytes;
    memcpy(&bytes, from, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

INLINE void times(const int tokens, const uint8_t *w, int64_t blocks, const int8_rows *x, int64_t first,
                  const uint8_t *next, float out[TOGETHER][ROWS]) {
    const int8_t *q = x->q + first * x->columns;
    const float *scale = x->scale + first * x->columns / COLUMNS;
    const int32_t *start = x->start + first * x->columns / GROUP;
    const __m512i nibble = _mm512_set1_epi8(15), low = _mm512_set1_epi32(0xffff);
    __m512 sum[TOGETHER];
#pragma GCC unroll 8
    for (int m = 0; m < tokens; m++) sum[m] = _mm512_setzero_ps();
    for (int64_t b = 0; b < blocks; b++, w += BLOCK_BYTES) {
        const uint8_t *soon = b + AHEAD < blocks ? w + AHEAD * BLOCK_BYTES : next + (b + AHEAD - blocks) * BLOCK_BYTES;
        fetch(soon);
        __m512i whole[TOGETHER];
#pragma GCC unroll 8
        for (int m = 0; m < tokens; m++) whole[m] = _mm512_setzero_si512();
        for (int g = 0; g < GROUPS; g++) {
            const uint8_t *at = w + GROUPS * ROWS + 256 * g;
#pragma GCC unroll 8
            for (int line = 0; line < 4; line++) fetch(soon + GROUPS * ROWS + 256 * g + 64 * line);
            __m128i bytes = _mm_loadu_si128((const __m128i *)(w + ROWS * g));
            __m512i weight_scale = _mm512_and_si512(_mm512_cvtepi8_epi32(bytes), low);
            __m512i quad[8];
#pragma GCC unroll 8
            for (int j = 0; j < 4; j++) {
                __m512i both = _mm512_loadu_si512(at + 64 * j);
                quad[j] = _mm512_and_si512(both, nibble);
                quad[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
            }
#pragma GCC unroll 8
            for (int m = 0; m < tokens; m++) {
                const int8_t *a = q + (b * COLUMNS + g * GROUP) * tokens + 4 * m;
                __m512i dot = _mm512_set1_epi32(start[(b * GROUPS + g) * tokens + m]);
#pragma GCC unroll 8
                for (int j = 0; j < 8; j++) dot = _mm512_dpbusd_epi32(dot, quad[j], four(a + 4 * j * tokens));
                // a dot fits into 16 bits
                whole[m] = _mm512_dpwssd_epi32(whole[m], dot, weight_scale);
            }
        }
#pragma GCC unroll 8
        for (int m = 0; m < tokens; m++)
            sum[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[m]),
                                     _mm512_set1_ps(scale[b * tokens + m]), sum[m]);
    }
#pragma GCC unroll 8
    for (int m = 0; m < tokens; m++) _mm512_storeu_ps(out[m], sum[m]);
}

#elif KIMI_AVX2

INLINE __m256i four(const void *from) { return (__m256i)_mm256_broadcast_ss(from); }

// Both 8-row halves of a 16-row block: [half].
INLINE void times(const int tokens, const uint8_t *w, int64_t blocks, const int8_rows *x, int64_t first,
                  const uint8_t *next, float out[TOGETHER][ROWS]) {
    const int8_t *q = x->q + first * x->columns;
    const float *scale = x->scale + first * x->columns / COLUMNS;
    const int32_t *start = x->start + first * x->columns / GROUP;
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256 sum[TOGETHER][2];
#pragma GCC unroll 4
    for (int m = 0; m < tokens; m++) sum[m][0] = sum[m][1] = _mm256_setzero_ps();
    for (int64_t b = 0; b < blocks; b++, w += BLOCK_BYTES) {
        const uint8_t *soon = b + AHEAD < blocks ? w + AHEAD * BLOCK_BYTES : next + (b + AHEAD - blocks) * BLOCK_BYTES;
        fetch(soon);
        __m256i whole[TOGETHER][2];
#pragma GCC unroll 4
        for (int m = 0; m < tokens; m++) whole[m][0] = whole[m][1] = _mm256_setzero_si256();
        for (int g = 0; g < GROUPS; g++) {
            const uint8_t *at = w + GROUPS * ROWS + 256 * g;
            for (int line = 0; line < 4; line++) fetch(soon + GROUPS * ROWS + 256 * g + 64 * line);
            const int8_t *a = q + (b * COLUMNS + g * GROUP) * tokens;
            __m256i pairs[TOGETHER][2];
#pragma GCC unroll 4
            for (int m = 0; m < tokens; m++)
                pairs[m][0] = pairs[m][1] = four(start + (b * GROUPS + g) * tokens + m);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                __m256i both[2] = {_mm256_loadu_si256((const __m256i *)(at + 64 * j)),
                                   _mm256_loadu_si256((const __m256i *)(at + 64 * j + 32))};
#pragma GCC unroll 2
                for (int upper = 0; upper < 2; upper++) {
                    __m256i quad[2];
#pragma GCC unroll 4
                    for (int half = 0; half < 2; half++)
                        quad[half] = _mm256_and_si256(upper ? _mm256_srli_epi16(both[half], 4) : both[half], nibble);
#pragma GCC unroll 4
                    for (int m = 0; m < tokens; m++) {
                        __m256i of_token = four(a + (16 * upper + 4 * j) * tokens + 4 * m);
#pragma GCC unroll 4
                        for (int half = 0; half < 2; half++) {
                            pairs[m][half] =
                                _mm256_add_epi16(pairs[m][half], _mm256_maddubs_epi16(quad[half], of_token));
                            KEEP(pairs[m][half]);
                        }
                    }
                }
            }
#pragma GCC unroll 4
            for (int half = 0; half < 2; half++) {
                __m256i weight_scale = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(
                    _mm_loadl_epi64((const __m128i *)(w + ROWS * g + 8 * half)),
                    _mm_loadl_epi64((const __m128i *)(w + ROWS * g + 8 * half))));
#pragma GCC unroll 4
                for (int m = 0; m < tokens; m++)
                    whole[m][half] =
                        _mm256_add_epi32(whole[m][half], _mm256_madd_epi16(pairs[m][half], weight_scale));
            }
        }
#pragma GCC unroll 4
        for (int m = 0; m < tokens; m++)
#pragma GCC unroll 4
            for (int half = 0; half < 2; half++)
                sum[m][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole[m][half]),
                                               _mm256_broadcast_ss(scale + b * tokens + m), sum[m][half]);
    }
#pragma GCC unroll 4
    for (int m = 0; m < tokens; m++) memcpy(out[m], sum[m], sizeof out[m]);
}

#else

INLINE void times(const int tokens, const uint8_t *w, int64_t blocks, const int8_rows *x, int64_t first,
                  const uint8_t *next, float out[TOGETHER][ROWS]) {
    const int8_t *q = x->q + first * x->columns;
    const float *scale = x->scale + first * x->columns / COLUMNS;
    const int32_t *start = x->start + first * x->columns / GROUP;
    (void)next; // what a processor fetches by itself is enough
    for (int m = 0; m < tokens; m++) memset(out[m], 0, sizeof out[m]);
    for (int64_t b = 0; b < blocks; b++, w += BLOCK_BYTES)
        for (int m = 0; m < tokens; m++) {
            int32_t whole[ROWS] = {0};
            for (int g = 0; g < GROUPS; g++) {
                const uint8_t *at = w + GROUPS * ROWS + 256 * g;
                const int8_t *a = q + (b * COLUMNS + g * GROUP) * tokens + 4 * m;
                int32_t dot[ROWS];
                for (int r = 0; r < ROWS; r++) dot[r] = start[(b * GROUPS + g) * tokens + m];
                for (int j = 0; j < 4; j++)
                    for (int r = 0; r < ROWS; r++)
                        for (int i = 0; i < 4; i++) {
                            int both = at[64 * j + 4 * r + i];
                            dot[r] += (both & 15) * a[4 * j * tokens + i] + (both >> 4) * a[(16 + 4 * j) * tokens + i];
                        }
                for (int r = 0; r < ROWS; r++) whole[r] += dot[r] * (int8_t)w[ROWS * g + r];
            }
            for (int r = 0; r < ROWS; r++) out[m][r] += (float)whole[r] * scale[b * tokens + m];
        }
}

#endif

static void times_some(int64_t tokens, const uint8_t *at, int64_t blocks, const int8_rows *x, int64_t first,
                       const uint8_t *next, float out[TOGETHER][ROWS]) {
    switch (tokens) {
        case TOGETHER: times(TOGETHER, at, blocks, x, first, next, out); break;
#if TOGETHER > 4
        case 4: times(4, at, blocks, x, first, next, out); break;
#endif
        case 2: times(2, at, blocks, x, first, next, out); break;
        default: times(1, at, blocks, x, first, next, out);
    }
}

void int4_times_int8(const int4_matrix *w, int64_t block_row, const int8_rows *x, int64_t first, int64_t tokens,
                     const uint8_t *next, float *y, int64_t stride) {
    int64_t blocks = w->columns / COLUMNS;
    const uint8_t *at = int4_rows_at(w, block_row), *rest = w->rest ? w->rest + block_row * w->stride : NULL;
    float out[TOGETHER][ROWS], more[TOGETHER][ROWS];
    if (!next) next = at + w->stride;
    for (int64_t m = 0, some; m < tokens; m += some) {
        some = tile_at(x->tokens, first + m);
        times_some(some, at, blocks, x, first + m, rest ? rest : next, out);
        if (rest) times_some(some, rest, blocks, x, first + m, next, more);
        for (int64_t i = 0; i < some; i++)
            for (int r = 0; r < ROWS; r += LANES) {
                floats sum = load(out[i] + r) * load(w->row_scale + block_row * ROWS + r);
                if (rest) sum += load(more[i] + r) * load(w->rest_scale + block_row * ROWS + r);
                store(y + (m + i) * stride + r, sum);
            }
    }
}

int4_matrix int4_behind(int4_matrix w, int64_t n) {
    int64_t bytes = n * (w.rows / ROWS) * w.stride;
    w.blocks += bytes;
    w.row_scale += n * w.rows;
    if (w.rest) {
        w.rest += bytes;
        w.rest_scale += n * w.rows;
    }
    return w;
}

// Tokens whose activations stay in the cache near the core while all rows pass.
#define TILE 64

void int4_share(const int4_matrix *w, share rows, const int8_rows *x, float *y, int64_t stride) {
    int64_t tokens = x->tokens;
    for (int64_t first = 0; first < tokens; first += TILE) {
        int64_t some = tokens - first < TILE ? tokens - first : TILE;
        for (int64_t b = rows.from; b < rows.to; b++)
            int4_times_int8(w, b, x, first, some, NULL, y + first * stride + b * ROWS, stride);
    }
}

typedef struct {
    pool *p;
    const float *x, *norm;
    int64_t count, tokens;
    float eps;
    int8_rows x8;
    float *normed; // [threads, count]
} input;

static void take_input(input *i, room *r, int64_t columns) {
    i->x8 = take_int8_rows(r, i->tokens, columns);
    i->normed = take(r, pool_threads(i->p) * i->count * (int64_t)sizeof(float));
}

// Each token as a row of x8, or alone.
static void quantize_input(input *i, int alone, ahead *soon, int thread, int threads) {
    share mine = share_of(i->tokens, thread, threads);
    float *normed = i->normed + thread * i->count;
    for (int64_t m = mine.from; m < mine.to; m++) {
        const float *x = i->x + m * i->count;
        if (i->norm) {
            rms_norm_row(x, i->norm, i->count, i->eps, normed);
            x = normed;
        }
        if (alone)
            int8_quantize_row(x, i->count, int8_part(i->x8, m, 1), 0);
        else
            int8_quantize_row(x, i->count, i->x8, m);
    }
    pool_barrier(i->p, soon);
}

typedef struct {
    input in;
    const int4_matrix *w;
    float *y;
} linear_job;

static void linear_work(void *context, int thread, int threads) {
    linear_job *j = context;
    share rows = share_of(j->w->rows / ROWS, thread, threads);
    ahead soon = {0};
    ahead_add_rows(&soon, j->w, rows);
    quantize_input(&j->in, 0, &soon, thread, threads);
    int4_share(j->w, rows, &j->in.x8, j->y, j->w->rows);
}

void int4_linear(pool *p, const float *x, int64_t count, int64_t tokens, const float *norm, float eps,
                 const int4_matrix *w, float *y) {
    linear_job j = {{p, x, norm, count, tokens, eps, {0}, NULL}, w, y};
    room r = {0};
    take_input(&j.in, &r, w->columns);
    r = (room){pool_room(p, r.used), 0};
    take_input(&j.in, &r, w->columns);
    pool_run(p, linear_work, &j);
}

typedef struct {
    input in;
    const int4_matrix *w;
    const int32_t *wanted;
    int64_t some;
    float *y;
} some_job;

static void some_work(void *context, int thread, int threads) {
    some_job *j = context;
    ahead nothing = {0};
    quantize_input(&j->in, 1, &nothing, thread, threads);
    share mine = share_of(j->in.tokens * j->some, thread, threads);
    for (int64_t i = mine.from; i < mine.to; i++) {
        int8_rows x = int8_part(j->in.x8, i / j->some, 1);
        const uint8_t *next = i + 1 < mine.to ? int4_rows_at(j->w, j->wanted[i + 1]) : NULL;
        int4_times_int8(j->w, j->wanted[i], &x, 0, 1, next, j->y + i * ROWS, ROWS);
    }
}

void int4_linear_some(pool *p, const float *x, int64_t count, int64_t tokens, const float *norm, float eps,
                      const int4_matrix *w, const int32_t *wanted, int64_t some, float *y) {
    some_job j = {{p, x, norm, count, tokens, eps, {0}, NULL}, w, wanted, some, y};
    room r = {0};
    take_input(&j.in, &r, w->columns);
    r = (room){pool_room(p, r.used), 0};
    take_input(&j.in, &r, w->columns);
    pool_run(p, some_work, &j);
}

// ---- as numbers ----

// to [16, stride], of which 128 columns, += the weights of a block.
static void add_block(const uint8_t *w, const float row_scale[ROWS], float *to, int64_t stride) {
    for (int g = 0; g < GROUPS; g++) {
        const uint8_t *at = w + GROUPS * ROWS + 256 * g;
        for (int r = 0; r < ROWS; r++) {
            float step = (float)(int8_t)w[ROWS * g + r] * row_scale[r], *row = to + r * stride + g * GROUP;
            uint8_t both[16];
            for (int j = 0; j < 4; j++) memcpy(both + 4 * j, at + 64 * j + 4 * r, 4);
            for (int i = 0; i < 16; i += LANES) {
                bytes some;
                memcpy(&some, both + i, sizeof some);
                ints two = __builtin_convertvector(some, ints);
                floats low = __builtin_convertvector((two & 15) - 8, floats);
                floats high = __builtin_convertvector((two >> 4 & 15) - 8, floats);
                store(row + i, load(row + i) + low * step);
                store(row + 16 + i, load(row + 16 + i) + high * step);
            }
        }
    }
}

void int4_rows(const int4_matrix *w, int64_t block_row, float *to) {
    memset(to, 0, sizeof(float) * ROWS * (size_t)w->columns);
    for (int64_t c = 0; c < w->columns / COLUMNS; c++) {
        int64_t skipped = block_row * w->stride + c * BLOCK_BYTES;
        add_block(w->blocks + skipped, w->row_scale + block_row * ROWS, to + c * COLUMNS, w->columns);
        if (w->rest) add_block(w->rest + skipped, w->rest_scale + block_row * ROWS, to + c * COLUMNS, w->columns);
    }
}

typedef struct {
    const int4_matrix *w;
    int64_t rows, columns;
    number *to;
    float *floats; // [threads, 16, padded columns]
} numbers_job;

static void numbers_work(void *context, int thread, int threads) {
    numbers_job *j = context;
    share mine = share_of(j->w->rows / ROWS, thread, threads);
    float *floats = j->floats + thread * ROWS * j->w->columns;
    for (int64_t b = mine.from; b < mine.to; b++) {
        int4_rows(j->w, b, floats);
        for (int64_t r = b * ROWS; r < (b + 1) * ROWS && r < j->rows; r++)
            for (int64_t i = 0; i < j->columns; i++)
                j->to[r * j->columns + i] = one_number(floats[r % ROWS * j->w->columns + i]);
    }
}

void int4_numbers(pool *p, const int4_matrix *w, int64_t rows, int64_t columns, number *to) {
    int64_t floats = pool_threads(p) * ROWS * w->columns * (int64_t)sizeof(float);
    numbers_job j = {w, rows, columns, to, (float *)pool_room(p, floats)};
    pool_run(p, numbers_work, &j);
}
