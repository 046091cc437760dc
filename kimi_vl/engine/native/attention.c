#include "attention.h"

#include <math.h>

#define NOTHING -1e30f

#if KIMI_AVX2
#include "attention_avx2.h"
#elif KIMI_AVX512
#include "attention_avx512.h"
#else
#include "attention_floats.h"
#endif

memory take_memory(room *r, int64_t count, int dim, int value_dim, int shared) {
    memory m = {.dim = dim, .value_dim = value_dim, .value_stride = value_dim, .shared = shared};
    m.key = take(r, count * APART(dim) * (int64_t)sizeof(factor));
#if KIMI_AVX2
    // tiles that are read one after the other should not lie in the same places of a processor's cache
    m.value_stride = (count + 1) / 2 * 2 * TILE + 2 * TILE;
    m.value = take(r, (value_dim + TILE - 1) / TILE * m.value_stride * (int64_t)sizeof(factor));
    m.key_scale = take(r, count * CHUNKS(dim) * (int64_t)sizeof(float));
    m.value_scale = shared ? m.key_scale : take(r, count * CHUNKS(value_dim) * (int64_t)sizeof(float));
#else
    m.value = shared ? m.key : take(r, count * value_dim * (int64_t)sizeof(factor));
    m.value_stride = shared ? APART(dim) : value_dim;
#endif
    return m;
}

attention attention_begin(const factor *queries, int dim, int value_dim, float *out, ahead *soon) {
    attention a = {.queries = queries, .dim = dim, .value_dim = value_dim, .out = out, .soon = soon};
    memset(out, 0, sizeof(float) * QUERIES * (size_t)value_dim);
    for (int v = 0; v < VECTORS; v++) a.most[v] = splat(NOTHING);
    return a;
}

void attention_add(attention *a, const memory *m, int64_t first, int keys, int visible, int step) {
    floats score[KEYS][VECTORS], shrink[VECTORS], grow[VECTORS];
    scores(a->queries, m, first, keys, score, a->soon);
    for (int v = 0; v < VECTORS; v++) {
        ints limit;
        for (int l = 0; l < LANES; l++) limit[l] = visible + (v * LANES + l) * step;
        for (int t = visible > 0 ? visible : 0; t < keys; t++)
            score[t][v] = blend(limit > t, score[t][v], splat(NOTHING));
        // more than what is hidden has, which would else count as e^0 to a query that sees nothing here
        floats here = splat(NOTHING / 2), sum = {0};
        for (int t = 0; t < keys; t++) here = larger(here, score[t][v]);
        for (int t = 0; t < keys; t++) sum += score[t][v] = decay(score[t][v] - here);
        floats most = larger(a->most[v], here);
        shrink[v] = exponential(a->most[v] - most);
        grow[v] = exponential(here - most);
        a->sum[v] = a->sum[v] * shrink[v] + sum * grow[v];
        a->most[v] = most;
    }
    mix(a, m, first, keys, score, (const float *)shrink, (const float *)grow);
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
    in_order(to, value_dim);
}
