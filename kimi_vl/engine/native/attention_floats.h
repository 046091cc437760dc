// attention.c in floats, by whatever vectors there are.

int64_t queries_bytes(int dim) { return (int64_t)QUERIES * dim * (int64_t)sizeof(factor); }

void queries_fill(factor *queries, const float *const query[QUERIES], float scale, int dim, int from, int to) {
    int end = to * CHUNK < dim ? to * CHUNK : dim;
    for (int d = from * CHUNK; d < end; d++)
        for (int i = 0; i < QUERIES; i++) queries[d * QUERIES + i] = query[i] ? query[i][d] * scale : 0;
}

void key_from_floats(const memory *m, int64_t t, const float *x) {
    memcpy(m->key + t * APART(m->dim), x, sizeof(factor) * (size_t)m->dim);
}

void keys_from_bf16(const memory *m, const uint16_t *x, int count) {
    for (int64_t t = 0; t < count; t++) floats_from_bf16(m->key + t * APART(m->dim), x + t * m->dim, m->dim);
}

void key_from_int8(const memory *m, int64_t t, const int8_t *x, const float *scale) {
    factor *to = m->key + t * APART(m->dim);
    for (int d = 0; d < m->dim; d++) to[d] = (float)x[d] * scale[d / CHUNK];
}

void value_from_floats(const memory *m, int64_t t, const float *x) {
    memcpy(m->value + t * m->value_stride, x, sizeof(factor) * (size_t)m->value_dim);
}

void values_from_keys(const memory *m, int count) {
    (void)m, (void)count; // they are the same
}

INLINE void times(const int some, const factor *queries, int dim, const factor *rows, int64_t stride,
                  floats (*out)[VECTORS]) {
    floats sum[4][VECTORS] = {0};
    for (int d = 0; d < dim; d++) {
        floats q[VECTORS];
        for (int v = 0; v < VECTORS; v++) q[v] = load(queries + d * QUERIES + v * LANES);
        for (int t = 0; t < some; t++)
            for (int v = 0; v < VECTORS; v++) sum[t][v] += q[v] * rows[t * stride + d];
    }
    for (int t = 0; t < some; t++)
        for (int v = 0; v < VECTORS; v++) out[t][v] = sum[t][v];
}

void scores(const factor *queries, const memory *m, int64_t first, int count, floats (*out)[VECTORS], ahead *soon) {
    int64_t stride = APART(m->dim);
    const factor *rows = m->key + first * stride;
    (void)soon; // processors without vectors of their own are no faster for it
    int t = 0;
    for (; t + 4 <= count; t += 4) times(4, queries, m->dim, rows + t * stride, stride, out + t);
    for (; t < count; t++) times(1, queries, m->dim, rows + t * stride, stride, out + t);
}

// Of four queries, two vectors.
static void mix(attention *a, const memory *m, int64_t first, int keys, floats (*weights)[VECTORS],
                const float *shrink, const float *grow) {
    const float *weight = (const float *)weights;
    for (int d = 0; d < a->value_dim; d += 2 * LANES)
        for (int i = 0; i < QUERIES; i += 4) {
            floats sum[4][2] = {0};
            for (int t = 0; t < keys; t++) {
                const factor *value = m->value + (first + t) * m->value_stride + d;
                floats x[2] = {load(value), load(value + LANES)};
                for (int q = 0; q < 4; q++)
                    for (int v = 0; v < 2; v++) sum[q][v] += x[v] * weight[t * QUERIES + i + q];
            }
            for (int q = 0; q < 4; q++)
                for (int v = 0; v < 2; v++) {
                    float *out = a->out + (i + q) * a->value_dim + d + v * LANES;
                    store(out, load(out) * shrink[i + q] + sum[q][v] * grow[i + q]);
                }
        }
}

static void in_order(float *x, int count) {
    (void)x, (void)count; // they always are
}
