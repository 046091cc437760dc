#include "experts.h"

#include <math.h>
#include <stdlib.h>

#include "simd.h"

// Tokens of which one thread holds gate and up at a time.
#define TILE 32

typedef struct {
    pool *p;
    const feed_forward *f;
    float *x;
    int64_t tokens;
    int32_t *told; // the caller's copy of the choice

    float *normed;        // [tokens, hidden]
    int8_rows input;      // of all tokens
    float *logits;        // [tokens, experts]
    int32_t *choice;      // [tokens, chosen], ascending
    float *choice_weight; // [tokens, chosen]
    int64_t *offset;      // [experts + 1]: whose places are whose
    int64_t *token;       // [places] of each place
    float *weight;        // [places]
    int8_rows gathered;   // [places], the input of each place
    int8_rows inner;      // [places]
    int8_rows shared_inner;
    float *sum; // [tokens, hidden padded]
    float *tile; // [threads, 2, TILE, 32]
} ff_job;

static void layout(ff_job *j, room *r) {
    const feed_forward *f = j->f;
    int64_t places = j->tokens * f->chosen, threads = pool_threads(j->p);
    j->normed = take(r, j->tokens * f->hidden * (int64_t)sizeof(float));
    j->input = take_int8_rows(r, j->tokens, f->shared.gate.columns);
    j->shared_inner = take_int8_rows(r, j->tokens, f->shared.down.columns);
    j->sum = take(r, j->tokens * f->shared.down.rows * (int64_t)sizeof(float));
    j->tile = take(r, threads * 2 * TILE * GROUP * (int64_t)sizeof(float));
    if (!f->experts) return;
    j->logits = take(r, j->tokens * f->experts * (int64_t)sizeof(float));
    j->choice = take(r, places * (int64_t)sizeof(int32_t));
    j->choice_weight = take(r, places * (int64_t)sizeof(float));
    j->offset = take(r, (f->experts + 1) * (int64_t)sizeof(int64_t));
    j->token = take(r, places * (int64_t)sizeof(int64_t));
    j->weight = take(r, places * (int64_t)sizeof(float));
    j->gathered = take_int8_rows(r, places, f->one.gate.columns);
    j->inner = take_int8_rows(r, places, f->one.down.columns);
}

static float dot(const float *a, const float *b, int64_t count) {
    floats sums = {0};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) sums += load(a + i) * load(b + i);
    float sum = sum_of(sums);
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

static void copy_row(int8_rows to, int64_t row, int8_rows from, int64_t of) {
    int64_t columns = from.columns, groups = columns / GROUP;
    memcpy(to.q + row * columns, from.q + of * columns, (size_t)columns);
    memcpy(to.scale + row * groups, from.scale + of * groups, sizeof(float) * (size_t)groups);
    memcpy(to.minus8 + row * groups, from.minus8 + of * groups, sizeof(int32_t) * (size_t)groups);
}

// ---- experts -----------------------------------------------------------------------------------------------------

static swiglu expert(const feed_forward *f, int32_t e) {
    return (swiglu){int4_behind(f->one.gate, e), int4_behind(f->one.up, e), int4_behind(f->one.down, e)};
}

// inner[first + m] = silu(gate(x)) · up(x), the share of 32-row pieces, for tokens from `first` on.
static void rise(const swiglu *s, share pieces, const int8_rows *x, int64_t first, int64_t tokens, int8_rows inner,
                 float *tile) {
    float *gate = tile, *up = tile + TILE * GROUP;
    int64_t groups = inner.columns / GROUP, block_rows = s->gate.rows / ROWS;
    for (int64_t from = first; from < first + tokens; from += TILE) {
        int64_t some = first + tokens - from < TILE ? first + tokens - from : TILE;
        for (int64_t g = pieces.from; g < pieces.to; g++) {
            for (int half = 0; half < 2; half++) {
                // the last piece may be but 16 rows, and behind the last row all is 0
                int64_t b = 2 * g + half;
                for (int64_t m = 0; m < some && b >= block_rows; m++)
                    for (int i = half * ROWS; i < (half + 1) * ROWS; i++) gate[m * GROUP + i] = up[m * GROUP + i] = 0;
                if (b >= block_rows) continue;
                int4_times_int8(&s->gate, b, x, from, some, gate + half * ROWS, GROUP);
                int4_times_int8(&s->up, b, x, from, some, up + half * ROWS, GROUP);
            }
            for (int64_t m = 0; m < some; m++) {
                float product[GROUP];
                for (int i = 0; i < GROUP; i += LANES)
                    store(product + i, silu(load(gate + m * GROUP + i)) * load(up + m * GROUP + i));
                int64_t row = from + m;
                int8_rows piece = {inner.q + row * inner.columns + g * GROUP, inner.scale + row * groups + g,
                                   inner.minus8 + row * groups + g, GROUP};
                int8_quantize_row(product, GROUP, piece, 0);
            }
        }
    }
}

// sum[token of m] += weight of m · down(inner[first + m]), the share of 16-row blocks.
static void fall(const int4_matrix *down, share rows, const int8_rows *inner, int64_t first, int64_t tokens,
                 const int64_t *token, const float *weight, float *sum) {
    float part[TILE * ROWS];
    for (int64_t from = first; from < first + tokens; from += TILE) {
        int64_t some = first + tokens - from < TILE ? first + tokens - from : TILE;
        for (int64_t b = rows.from; b < rows.to; b++) {
            int4_times_int8(down, b, inner, from, some, part, ROWS);
            for (int64_t m = 0; m < some; m++) {
                int64_t row = token ? token[from + m] : from + m;
                float *to = sum + row * down->rows + b * ROWS, share_of_it = weight ? weight[from + m] : 1.0f;
                for (int r = 0; r < ROWS; r += LANES) store(to + r, load(to + r) + load(part + m * ROWS + r) * share_of_it);
            }
        }
    }
}

static void work(void *context, int thread, int threads) {
    ff_job *j = context;
    const feed_forward *f = j->f;
    float *tile = j->tile + thread * 2 * TILE * GROUP;

    share tokens = share_of(j->tokens, thread, threads);
    for (int64_t m = tokens.from; m < tokens.to; m++) {
        rms_norm_row(j->x + m * f->hidden, f->norm, f->hidden, f->eps, j->normed + m * f->hidden);
        int8_quantize_row(j->normed + m * f->hidden, f->hidden, j->input, m);
    }
    pool_barrier(j->p);

    if (f->experts) {
        share experts = share_of(f->experts, thread, threads);
        for (int64_t e = experts.from; e < experts.to; e++)
            for (int64_t m = 0; m < j->tokens; m++)
                j->logits[m * f->experts + e] = dot(f->router + e * f->hidden, j->normed + m * f->hidden, f->hidden);
        pool_barrier(j->p);
        for (int64_t m = tokens.from; m < tokens.to; m++)
            choose(f, j->logits + m * f->experts, j->choice + m * f->chosen, j->choice_weight + m * f->chosen);
        pool_barrier(j->p);
        if (thread == 0) group(j);
        pool_barrier(j->p);
        share places = share_of(j->tokens * f->chosen, thread, threads);
        for (int64_t i = places.from; i < places.to; i++) copy_row(j->gathered, i, j->input, j->token[i]);
        pool_barrier(j->p);
    }

    share pieces = share_of(f->shared.down.columns / GROUP, thread, threads);
    rise(&f->shared, pieces, &j->input, 0, j->tokens, j->shared_inner, tile);
    for (int32_t e = 0; e < f->experts; e++) {
        int64_t first = j->offset[e], some = j->offset[e + 1] - first;
        if (!some) continue;
        swiglu s = expert(f, e);
        rise(&s, share_of(s.down.columns / GROUP, thread, threads), &j->gathered, first, some, j->inner, tile);
    }
    pool_barrier(j->p);

    share rows = share_of(f->shared.down.rows / ROWS, thread, threads);
    int64_t stride = f->shared.down.rows, width = (rows.to - rows.from) * ROWS;
    for (int64_t m = 0; m < j->tokens; m++)
        memset(j->sum + m * stride + rows.from * ROWS, 0, sizeof(float) * (size_t)width);
    fall(&f->shared.down, rows, &j->shared_inner, 0, j->tokens, NULL, NULL, j->sum);
    for (int32_t e = 0; e < f->experts; e++) {
        int64_t first = j->offset[e], some = j->offset[e + 1] - first;
        if (!some) continue;
        swiglu s = expert(f, e);
        fall(&s.down, rows, &j->inner, first, some, j->token, j->weight, j->sum);
    }
    int64_t end = rows.to * ROWS < f->hidden ? rows.to * ROWS : f->hidden;
    for (int64_t m = 0; m < j->tokens; m++)
        for (int64_t i = rows.from * ROWS; i < end; i++) j->x[m * f->hidden + i] += j->sum[m * stride + i];
}

void feed_forward_run(pool *p, const feed_forward *f, float *x, int64_t tokens, int32_t *chosen) {
    ff_job j = {.p = p, .f = f, .x = x, .tokens = tokens, .told = chosen};
    room r = {0};
    layout(&j, &r);
    r = (room){pool_room(p, r.used), 0};
    layout(&j, &r);
    pool_run(p, work, &j);
}
