#include "experts.h"

#include <math.h>
#include <stdlib.h>

#include "latent.h"
#include "simd.h"

// Tokens of which one thread holds gate and up at a time.
#define TILE 32
// Of the rows of 16 of the output, each thread takes about so many pieces, one at a time.
#define FALLS 4
// Pieces of the shared expert that a thread fetches while others, or attention, keep it waiting.
#define AHEAD_PIECES 8

typedef struct {
    pool *p;
    const feed_forward *f;
    float *x;
    int64_t tokens;
    int32_t *told; // the caller's copy of the choice
    const latent_attention *then;

    float *normed;        // [tokens, hidden]
    int8_rows input;      // of all tokens
    float *logits;        // [tokens, experts]
    int32_t *choice;      // [tokens, chosen], ascending
    float *choice_weight; // [tokens, chosen]
    int64_t *offset;      // [experts + 1]: whose places are whose
    int32_t *called;      // the experts that have places
    int64_t *token;       // [places] of each place
    float *weight;        // [places]
    int64_t calls, risen, fallen;
    int8_rows gathered;   // [places], the input of each place
    int8_rows inner;      // [places]
    int8_rows shared_inner;
    float *sum; // [tokens, hidden padded]
    float *tile; // [threads, TILE, 256]
} ff_job;

static void layout(ff_job *j, room *r) {
    const feed_forward *f = j->f;
    int64_t places = j->tokens * f->chosen, threads = pool_threads(j->p);
    j->normed = take(r, j->tokens * f->hidden * (int64_t)sizeof(float));
    j->input = take_int8_rows(r, j->tokens, f->shared.gate_up.columns);
    j->shared_inner = take_int8_rows(r, j->tokens, f->shared.down.columns);
    j->sum = take(r, j->tokens * f->shared.down.rows * (int64_t)sizeof(float));
    j->tile = take(r, threads * 2 * TILE * COLUMNS * (int64_t)sizeof(float));
    if (!f->experts) return;
    j->logits = take(r, j->tokens * f->experts * (int64_t)sizeof(float));
    j->choice = take(r, places * (int64_t)sizeof(int32_t));
    j->choice_weight = take(r, places * (int64_t)sizeof(float));
    j->offset = take(r, (f->experts + 1) * (int64_t)sizeof(int64_t));
    j->called = take(r, f->experts * (int64_t)sizeof(int32_t));
    j->token = take(r, places * (int64_t)sizeof(int64_t));
    j->weight = take(r, places * (int64_t)sizeof(float));
    j->gathered = take_int8_rows(r, places, f->one.gate_up.columns);
    j->inner = take_int8_rows(r, places, f->one.down.columns);
}

// Four sums, so that none waits for itself.
static float dot(const float *a, const float *b, int64_t count) {
    floats sums[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES)
        for (int n = 0; n < 4; n++) sums[n] += load(a + i + n * LANES) * load(b + i + n * LANES);
    float sum = sum_of(sums[0] + sums[1] + (sums[2] + sums[3]));
    for (; i < count; i++) sum += a[i] * b[i];
    return sum;
}

// ---- routing -----------------------------------------------------------------------------------------------------

// The places of the `count` largest of values, ascending; ties go to the first. NAN is no candidate.
static void largest(const float *values, int32_t from, int32_t count, int32_t *places) {
    for (int32_t n = 0; n < count; n++) {
        int32_t best = -1;
        for (int32_t i = 0; i < from; i++) {
            int taken = 0;
            for (int32_t k = 0; k < n; k++) taken |= places[k] == i;
            if (!taken && (best < 0 || values[i] > values[best])) best = i;
        }
        places[n] = best;
    }
    for (int32_t i = 1; i < count; i++)
        for (int32_t k = i; k && places[k] < places[k - 1]; k--) {
            int32_t t = places[k];
            places[k] = places[k - 1];
            places[k - 1] = t;
        }
}

static void choose(const feed_forward *f, const float *logits, int32_t *chosen, float *weight) {
    float score[f->experts], choice[f->experts];
    for (int32_t e = 0; e < f->experts; e++) {
        score[e] = 1.0f / (1.0f + expf(-logits[e]));
        choice[e] = score[e] + f->bias[e];
    }
    if (f->groups > 1) {
        int32_t size = f->experts / f->groups, kept[f->groups];
        float best_two[f->groups];
        for (int32_t g = 0; g < f->groups; g++) {
            int32_t best[2] = {0, 0}, some = size < 2 ? size : 2;
            largest(choice + g * size, size, some, best);
            best_two[g] = 0;
            for (int32_t i = 0; i < some; i++) best_two[g] += choice[g * size + best[i]];
        }
        largest(best_two, f->groups, f->kept_groups, kept);
        for (int32_t g = 0; g < f->groups; g++) {
            int stays = 0;
            for (int32_t i = 0; i < f->kept_groups; i++) stays |= kept[i] == g;
            for (int32_t i = 0; i < size && !stays; i++) choice[g * size + i] = -INFINITY;
        }
    }
    largest(choice, f->experts, f->chosen, chosen);
    float sum = 1e-20f;
    for (int32_t i = 0; i < f->chosen; i++) sum += score[chosen[i]];
    for (int32_t i = 0; i < f->chosen; i++)
        weight[i] = score[chosen[i]] * f->routed_scale / (f->normalize ? sum : 1.0f);
}

// Sorts the chosen places by expert, each expert's by token.
static void group(ff_job *j) {
    const feed_forward *f = j->f;
    int64_t places = j->tokens * f->chosen, next[f->experts];
    for (int32_t e = 0; e <= f->experts; e++) j->offset[e] = 0;
    for (int64_t i = 0; i < places; i++) j->offset[j->choice[i] + 1]++;
    for (int32_t e = 0; e < f->experts; e++) {
        if (j->offset[e + 1]) j->called[j->calls++] = e;
        j->offset[e + 1] += j->offset[e];
        next[e] = j->offset[e];
    }
    for (int64_t i = 0; i < places; i++) {
        int64_t at = next[j->choice[i]]++;
        j->token[at] = i / f->chosen;
        j->weight[at] = j->choice_weight[i];
    }
    if (j->told) memcpy(j->told, j->choice, sizeof(int32_t) * (size_t)places);
}

// ---- experts -----------------------------------------------------------------------------------------------------

static swiglu expert(const feed_forward *f, int32_t e) {
    return (swiglu){int4_behind(f->one.gate_up, e), int4_behind(f->one.down, e)};
}

// Those of the rows of all places that belong to expert e.
static int8_rows places_of(const ff_job *j, int8_rows of, int32_t e) {
    return int8_part(of, j->offset[e], j->offset[e + 1] - j->offset[e]);
}

// inner = silu(gate(x)) · up(x): columns 128 · piece to 128 · piece + 127. `next` is where the weights of a thread's
// next piece may lie.
static void rise(const swiglu *s, int64_t piece, const int8_rows *x, int8_rows inner, const uint8_t *next, float *tile) {
    int64_t first = piece * (2 * COLUMNS / ROWS), rows = s->gate_up.rows / ROWS - first;
    rows = rows < 2 * COLUMNS / ROWS ? rows : 2 * COLUMNS / ROWS;
    // behind the last row all is 0
    if (rows < 2 * COLUMNS / ROWS) memset(tile, 0, sizeof(float) * 2 * TILE * COLUMNS);
    for (int64_t from = 0; from < x->tokens; from += TILE) {
        int64_t some = x->tokens - from < TILE ? x->tokens - from : TILE;
        for (int64_t b = 0; b < rows; b++)
            int4_times_int8(&s->gate_up, first + b, x, from, some, b + 1 < rows ? NULL : next, tile + b * ROWS,
                            2 * COLUMNS);
        for (int64_t m = 0; m < some; m++) {
            float product[COLUMNS];
            for (int i = 0; i < COLUMNS; i += LANES) {
                const float *gate = tile + m * 2 * COLUMNS + i / ROWS * 2 * ROWS + i % ROWS;
                store(product + i, silu(load(gate)) * load(gate + ROWS));
            }
            int8_quantize_block(product, inner, from + m, piece);
        }
    }
}

// sum[token of m] += weight of m · down(inner[m]), for some rows of 16. `next` are the weights wanted after these.
static void fall(const int4_matrix *down, share rows, const int8_rows *inner, const uint8_t *next,
                 const int64_t *token, const float *weight, float *sum) {
    float part[TILE * ROWS];
    for (int64_t from = 0; from < inner->tokens; from += TILE) {
        int64_t some = inner->tokens - from < TILE ? inner->tokens - from : TILE;
        for (int64_t b = rows.from; b < rows.to; b++) {
            int4_times_int8(down, b, inner, from, some, b + 1 < rows.to ? NULL : next, part, ROWS);
            for (int64_t m = 0; m < some; m++) {
                int64_t row = token ? token[from + m] : from + m;
                float *to = sum + row * down->rows + b * ROWS, share_of_it = weight ? weight[from + m] : 1.0f;
                for (int r = 0; r < ROWS; r += LANES) store(to + r, load(to + r) + load(part + m * ROWS + r) * share_of_it);
            }
        }
    }
}

// Where 16 rows of the n-th expert that has places lie, or NULL.
static const uint8_t *fall_of(const ff_job *j, int64_t n, int64_t block_row) {
    if (n >= j->calls) return NULL;
    int4_matrix down = int4_behind(j->f->one.down, j->called[n]);
    return int4_rows_at(&down, block_row);
}

static void route(ff_job *j, share tokens, ahead *soon, int thread, int threads) {
    const feed_forward *f = j->f;
    share experts = share_of(f->experts, thread, threads);
    ahead_of(soon, 1);
    for (int64_t e = experts.from; e < experts.to; e++)
        for (int64_t m = 0; m < j->tokens; m++)
            j->logits[m * f->experts + e] = dot(f->router + e * f->hidden, j->normed + m * f->hidden, f->hidden);
    pool_barrier(j->p, soon);
    for (int64_t m = tokens.from; m < tokens.to; m++)
        choose(f, j->logits + m * f->experts, j->choice + m * f->chosen, j->choice_weight + m * f->chosen);
    pool_barrier(j->p, soon);
    if (thread == 0) group(j);
    pool_barrier(j->p, soon);
    for (int64_t c = thread; c < j->calls; c += threads) {
        int8_rows mine = places_of(j, j->gathered, j->called[c]);
        for (int64_t m = 0; m < mine.tokens; m++)
            int8_copy_row(mine, m, j->input, j->token[j->offset[j->called[c]] + m]);
    }
    pool_barrier(j->p, soon);
}

// The n-th piece of all that rises: first of the shared expert, then of each of those that have places.
typedef struct {
    int32_t expert; // -1 is the shared one
    int64_t piece;
} riser;

static int64_t rises(const ff_job *j) {
    int64_t of_one = j->f->experts ? j->f->one.down.columns / COLUMNS : 0;
    return j->f->shared.down.columns / COLUMNS + j->calls * of_one;
}

static riser riser_at(const ff_job *j, int64_t n) {
    int64_t of_shared = j->f->shared.down.columns / COLUMNS;
    if (n < of_shared) return (riser){-1, n};
    int64_t of_one = j->f->one.down.columns / COLUMNS;
    return (riser){j->called[(n - of_shared) / of_one], (n - of_shared) % of_one};
}

static const uint8_t *riser_weights(const ff_job *j, int64_t n) {
    if (n >= rises(j)) return NULL;
    riser r = riser_at(j, n);
    swiglu s = r.expert < 0 ? j->f->shared : expert(j->f, r.expert);
    return int4_rows_at(&s.gate_up, r.piece * (2 * COLUMNS / ROWS));
}

static void rise_piece(ff_job *j, int64_t n, int threads, float *tile) {
    riser r = riser_at(j, n);
    // as long as threads are equally fast, each goes on where the others' pieces end
    const uint8_t *next = riser_weights(j, n + threads);
    if (r.expert < 0) {
        rise(&j->f->shared, r.piece, &j->input, j->shared_inner, next, tile);
        return;
    }
    swiglu s = expert(j->f, r.expert);
    int8_rows x = places_of(j, j->gathered, r.expert);
    rise(&s, r.piece, &x, places_of(j, j->inner, r.expert), next, tile);
}

// The n-th piece of so many rows of all.
static share piece_of(int64_t all, int64_t rows, int64_t n) {
    int64_t end = (n + 1) * rows < all ? (n + 1) * rows : all;
    return (share){n * rows < end ? n * rows : end, end};
}

void feed_forward_ahead(const feed_forward *f, int thread, int threads, ahead *soon) {
    share experts = share_of(f->experts, thread, threads);
    if (f->experts)
        ahead_add(soon, (const uint8_t *)(f->router + experts.from * f->hidden),
                  (experts.to - experts.from) * f->hidden * (int64_t)sizeof(float));
    int64_t rows = f->shared.gate_up.rows / ROWS, piece = 2 * COLUMNS / ROWS;
    for (int64_t n = thread; n * piece < rows && n < AHEAD_PIECES * threads; n += threads)
        ahead_add_rows(soon, &f->shared.gate_up, piece_of(rows, piece, n));
}

static void work(void *context, int thread, int threads) {
    ff_job *j = context;
    const feed_forward *f = j->f;
    float *tile = j->tile + thread * 2 * TILE * COLUMNS;

    share tokens = share_of(j->tokens, thread, threads);
    int64_t stride = f->shared.down.rows, rows = stride / ROWS, fall_rows = (rows + FALLS * threads - 1) / (FALLS * threads);
    ahead soon = {0};
    feed_forward_ahead(f, thread, threads, &soon);
    for (int64_t m = tokens.from; m < tokens.to; m++) {
        rms_norm_row(j->x + m * f->hidden, f->norm, f->hidden, f->eps, j->normed + m * f->hidden);
        int8_quantize_row(j->normed + m * f->hidden, f->hidden, j->input, m);
    }
    pool_barrier(j->p, &soon);
    if (f->experts) route(j, tokens, &soon, thread, threads);

    for (int64_t n; (n = next_piece(&j->risen)) < rises(j);) rise_piece(j, n, threads, tile);
    soon = (ahead){0};
    ahead_add_rows(&soon, &f->shared.down, piece_of(rows, fall_rows, thread));
    pool_barrier(j->p, &soon);

    soon = (ahead){0};
    if (j->then) latent_attention_ahead(j->then, thread, threads, &soon);
    for (int64_t n; (n = next_piece(&j->fallen)) * fall_rows < rows;) {
        share mine = piece_of(rows, fall_rows, n);
        int64_t first = mine.from * ROWS, end = mine.to * ROWS;
        for (int64_t m = 0; m < j->tokens; m++)
            memset(j->sum + m * stride + first, 0, sizeof(float) * (size_t)(end - first));
        fall(&f->shared.down, mine, &j->shared_inner, fall_of(j, 0, mine.from), NULL, NULL, j->sum);
        for (int64_t c = 0; c < j->calls; c++) {
            int32_t e = j->called[c];
            int4_matrix down = int4_behind(f->one.down, e);
            int8_rows inner = places_of(j, j->inner, e);
            const uint8_t *next = fall_of(j, c + 1, mine.from);
            fall(&down, mine, &inner, next, j->token + j->offset[e], j->weight + j->offset[e], j->sum);
        }
        end = end < f->hidden ? end : f->hidden;
        for (int64_t m = 0; m < j->tokens; m++)
            for (int64_t i = first; i < end; i++) j->x[m * f->hidden + i] += j->sum[m * stride + i];
    }
    pool_barrier(j->p, &soon);
}

void feed_forward_run(pool *p, const feed_forward *f, float *x, int64_t tokens, int32_t *chosen,
                      const latent_attention *then) {
    ff_job j = {.p = p, .f = f, .x = x, .tokens = tokens, .told = chosen, .then = then};
    room r = {0};
    layout(&j, &r);
    r = (room){pool_room(p, r.used), 0};
    layout(&j, &r);
    pool_run(p, work, &j);
}
