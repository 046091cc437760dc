#include "many.h"

#include "attention.h"

// Rows and columns of x that stay in a core's second cache while the same columns of all of a matrix pass.
#define TILE (8 * TOGETHER_KEYS)
#define PANEL (9 * CHUNK)

static int panel_width(int64_t columns, int64_t first) {
    return (int)(columns - first < PANEL ? columns - first : PANEL);
}

// Panels lie one after the other, and in each of them sixteen rows after sixteen.
static int64_t panel_bytes(int64_t rows, int width) { return (rows + QUERIES - 1) / QUERIES * queries_bytes(width); }

int64_t many_bytes(int64_t rows, int64_t columns) {
    int64_t bytes = 0;
    for (int64_t c = 0; c < columns; c += PANEL) bytes += panel_bytes(rows, panel_width(columns, c));
    return bytes;
}

typedef struct {
    const int4_matrix *w;
    int64_t rows, columns;
    uint8_t *packed;
    float *floats; // [threads, QUERIES padded to 16, columns of w]
} pack_job;

static void pack_work(void *context, int thread, int threads) {
    pack_job *j = context;
    int64_t wide = j->w->columns, blocks = QUERIES > ROWS ? QUERIES / ROWS : 1;
    share mine = share_of((j->w->rows / ROWS + blocks - 1) / blocks, thread, threads);
    float *floats = j->floats + thread * blocks * ROWS * wide;
    for (int64_t n = mine.from; n < mine.to; n++) {
        for (int64_t b = 0; b < blocks && n * blocks + b < j->w->rows / ROWS; b++)
            int4_rows(j->w, n * blocks + b, floats + b * ROWS * wide);
        for (int64_t first = 0; first < blocks * ROWS; first += QUERIES) {
            const float *row[QUERIES];
            int64_t at = n * blocks * ROWS + first;
            if (at >= j->rows) break;
            for (int i = 0; i < QUERIES; i++) row[i] = at + i < j->rows ? floats + (first + i) * wide : NULL;
            uint8_t *panel = j->packed;
            for (int64_t c = 0; c < j->columns; c += PANEL) {
                int width = panel_width(j->columns, c);
                queries_fill((factor *)(panel + at / QUERIES * queries_bytes(width)), row, 1.0f, width, 0, CHUNKS(width));
                for (int i = 0; i < QUERIES; i++) row[i] = row[i] ? row[i] + PANEL : NULL;
                panel += panel_bytes(j->rows, width);
            }
        }
    }
}

void many_pack(pool *p, const int4_matrix *w, int64_t rows, int64_t columns, uint8_t *packed) {
    int64_t floats = pool_threads(p) * (QUERIES > ROWS ? QUERIES : ROWS) * w->columns * (int64_t)sizeof(float);
    pack_job j = {w, rows, columns, packed, (float *)pool_room(p, floats)};
    pool_run(p, pack_work, &j);
}

typedef struct {
    const float *x;
    int64_t count;
    const uint8_t *packed;
    int64_t rows, columns;
    const float *bias;
    int gelu;
    float *y;
    int64_t tile;     // rows of x
    memory *of;       // [threads]
    floats *products; // [threads, tile, VECTORS]
    int64_t taken;
} times_job;

// x · (1 + tanh(√(2 / π) · (x + 0.044715 x³))) / 2
INLINE floats gelu(floats x) { return x / (1.0f + exponential(-1.5957691216f * (x + 0.044715f * x * x * x))); }

// y of some rows of x, and of sixteen rows of the matrix, is products or becomes more by them.
static void add_products(const times_job *j, int64_t first, int64_t some, int64_t row, int begins, int ends,
                         floats (*products)[VECTORS]) {
    int64_t end = j->rows - row < QUERIES ? j->rows - row : QUERIES;
    for (int64_t t = 0; t < some; t++) {
        float *y = j->y + (first + t) * j->rows + row, sum[QUERIES] = {0};
        memcpy(sum, begins ? j->bias + row : y, sizeof(float) * (size_t)end);
        for (int v = 0; v < VECTORS; v++) {
            floats all = load(sum + v * LANES) + products[t][v];
            store(sum + v * LANES, j->gelu && ends ? gelu(all) : all);
        }
        memcpy(y, sum, sizeof(float) * (size_t)end);
    }
}

static void times_work(void *context, int thread, int threads) {
    times_job *j = context;
    (void)threads;
    ahead nothing = {0};
    floats (*products)[VECTORS] = (floats (*)[VECTORS])(j->products + thread * j->tile * VECTORS);
    for (int64_t n; (n = next_piece(&j->taken)) * j->tile < j->count;) {
        int64_t first = n * j->tile, some = j->count - first < j->tile ? j->count - first : j->tile;
        const uint8_t *panel = j->packed;
        for (int64_t c = 0; c < j->columns; c += PANEL) {
            memory m = j->of[thread];
            m.dim = panel_width(j->columns, c);
            for (int64_t t = 0; t < some; t++) key_from_floats(&m, t, j->x + (first + t) * j->columns + c);
            for (int64_t row = 0; row < j->rows; row += QUERIES) {
                const uint8_t *weights = panel + row / QUERIES * queries_bytes(m.dim);
                scores((const factor *)weights, &m, 0, (int)some, products, &nothing);
                add_products(j, first, some, row, c == 0, c + PANEL >= j->columns, products);
            }
            panel += panel_bytes(j->rows, m.dim);
        }
    }
}

void many_times(pool *p, const float *x, int64_t count, const uint8_t *packed, int64_t rows, int64_t columns,
                const float *bias, int32_t gelu, float *y) {
    times_job j = {x, count, packed, rows, columns, bias, gelu, y, .tile = TILE};
    // all threads should have something to do
    while (j.tile > TOGETHER_KEYS && j.tile * 4 * pool_threads(p) > count) j.tile -= TOGETHER_KEYS;
    room r = {0};
    for (int pass = 0; pass < 2; pass++) {
        if (pass) r = (room){pool_room(p, r.used), 0};
        j.of = take(&r, pool_threads(p) * (int64_t)sizeof(memory));
        j.products = take(&r, pool_threads(p) * j.tile * VECTORS * (int64_t)sizeof(floats));
        for (int t = 0; t < pool_threads(p); t++) {
            memory m = take_memory(&r, j.tile, panel_width(columns, 0), 0, 0);
            if (pass) j.of[t] = m;
        }
    }
    pool_run(p, times_work, &j);
}
