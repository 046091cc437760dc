#include "latent.h"

#include <math.h>

#include "attention.h"

// Keys that are expanded before queries meet them: with their values they stay in a core's second cache.
#define EXPANDED 256
// A sequence's keys are cut into so many parts at most, for as many threads.
#define PARTS 8
#define TILE 64

typedef struct {
    pool *p;
    const latent_attention *a;
    float *x;
    const segment *segments;
    int32_t count;
    uint8_t *cache;
    int eight;
    const feed_forward *then;
    int64_t row_bytes;

    int64_t tokens, answers; // of all segments; of those that are no prompt
    int64_t longest;         // prompt
    int width, key_dim;      // rank + rope; nope + rope
    int groups;              // of heads, side by side
    const segment **whose;   // [tokens]
    int32_t *position;       // [tokens]
    float *angles;           // [tokens, rope], cosine and sine

    float *row;        // [threads, hidden or rank]
    int8_rows input;   // [tokens]
    float *q, *latent; // [tokens, q.rows], [tokens, latent.rows]
    memory *page;      // [threads]: PAGE latents, keys and values in one

    // answers
    int8_rows nope8, mixed8; // [heads, answers]
    float *query;            // [answers, heads, width]
    uint8_t *queries;        // [answers, groups]
    attention *parts;        // [answers, groups, PARTS]
    float *part_out;         // [answers, groups, PARTS, QUERIES, rank]
    int64_t attended_parts;

    // prompts
    int8_rows latents8[2]; // [EXPANDED]
    uint8_t *head_queries; // [heads, longest / QUERIES]
    attention *states;     // the same
    float *state_out;      // [heads, longest, value]
    memory *expanded;      // [threads]: EXPANDED keys and values of one head
    float *key, *value;    // [threads, PAGE, key_dim], [threads, PAGE, value]

    float *attended; // [tokens, heads · value]
    int8_rows attended8;
} mla_job;

static void layout(mla_job *j, room *r) {
    const latent_attention *a = j->a;
    int64_t floats = sizeof(float), threads = pool_threads(j->p);
    int64_t groups = j->answers * j->groups, longest = (j->longest + QUERIES - 1) / QUERIES;
    j->whose = take(r, j->tokens * (int64_t)sizeof(segment *));
    j->position = take(r, j->tokens * (int64_t)sizeof(int32_t));
    j->angles = take(r, j->tokens * a->rope * floats);
    j->row = take(r, threads * (a->hidden > a->rank ? a->hidden : a->rank) * floats);
    j->input = take_int8_rows(r, j->tokens, a->q.columns);
    j->q = take(r, j->tokens * a->q.rows * floats);
    j->latent = take(r, j->tokens * a->latent.rows * floats);
    j->attended = take(r, j->tokens * a->heads * a->value * floats);
    j->attended8 = take_int8_rows(r, j->tokens, a->o.columns);
    if (j->answers) {
        j->page = take(r, threads * (int64_t)sizeof(memory));
        for (int64_t t = 0; t < threads; t++) {
            memory page = take_memory(r, PAGE, j->width, a->rank, 1);
            if (r->base) j->page[t] = page;
        }
        j->nope8 = take_int8_rows(r, j->answers * a->heads, a->key.columns);
        j->mixed8 = take_int8_rows(r, j->answers * a->heads, a->mix.columns);
        j->query = take(r, j->answers * a->heads * j->width * floats);
        j->queries = take(r, groups * queries_bytes(j->width));
        j->parts = take(r, groups * PARTS * (int64_t)sizeof(attention));
        j->part_out = take(r, groups * PARTS * QUERIES * a->rank * floats);
    }
    if (j->longest) {
        for (int i = 0; i < 2; i++) j->latents8[i] = take_int8_rows(r, EXPANDED, a->mix.columns);
        j->head_queries = take(r, a->heads * longest * queries_bytes(j->key_dim));
        j->states = take(r, a->heads * longest * (int64_t)sizeof(attention));
        j->state_out = take(r, a->heads * longest * QUERIES * a->value * floats);
        j->expanded = take(r, threads * (int64_t)sizeof(memory));
        for (int64_t t = 0; t < threads; t++) {
            memory expanded = take_memory(r, EXPANDED, j->key_dim, a->value, 0);
            if (r->base) j->expanded[t] = expanded;
        }
        j->key = take(r, threads * PAGE * j->key_dim * floats);
        j->value = take(r, threads * PAGE * a->value * floats);
    }
}

static float *row_of(const mla_job *j, int thread) {
    return j->row + thread * (j->a->hidden > j->a->rank ? j->a->hidden : j->a->rank);
}

// ---- rows of the cache ---------------------------------------------------------------------------------------------

static uint8_t *cache_row(const mla_job *j, const segment *s, int64_t position) {
    return j->cache + ((int64_t)s->pages[position / PAGE] * PAGE + position % PAGE) * j->row_bytes;
}

// Numbers `from` up to `to` of a row that have one scale: a block of the latent, or the rest.
static int piece_end(const mla_job *j, int from) {
    int end = from < j->a->rank ? from - from % COLUMNS + COLUMNS : j->width;
    return from < j->a->rank && end > j->a->rank ? j->a->rank : end;
}

static float *piece_scale(const mla_job *j, uint8_t *row, int from) {
    int latent = (j->a->rank + COLUMNS - 1) / COLUMNS;
    return (float *)(row + j->width) + (from < j->a->rank ? from / COLUMNS : latent);
}

static void write_row(const mla_job *j, uint8_t *row, const float *x) {
    if (!j->eight) {
        uint16_t *half = (uint16_t *)row;
        for (int d = 0; d < j->width; d++) {
            uint32_t bits;
            memcpy(&bits, x + d, sizeof bits);
            half[d] = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
        }
        return;
    }
    for (int from = 0, end; from < j->width; from = end) {
        end = piece_end(j, from);
        float most = 0;
        for (int d = from; d < end; d++) most = fabsf(x[d]) > most ? fabsf(x[d]) : most;
        float scale = most / 127.0f;
        for (int d = from; d < end; d++) ((int8_t *)row)[d] = (int8_t)(most > 0 ? rintf(x[d] * (127.0f / most)) : 0);
        memcpy(piece_scale(j, row, from), &scale, sizeof scale);
    }
}

// Numbers `from` up to `to` of a row.
static void read_row(const mla_job *j, const uint8_t *row, int from, int to, float *x) {
    if (!j->eight) {
        floats_from_bf16(x, (const uint16_t *)row + from, to - from);
        return;
    }
    for (int end; from < to; x += end - from, from = end) {
        end = piece_end(j, from) < to ? piece_end(j, from) : to;
        float scale;
        memcpy(&scale, piece_scale(j, (uint8_t *)row, from), sizeof scale);
        for (int d = from; d < end; d++) x[d - from] = (float)(int8_t)row[d] * scale;
    }
}

// The same of 8 bits, as key t of a page.
static void read_key(const mla_job *j, const uint8_t *row, const memory *page, int t) {
    if (j->a->rank % CHUNK == 0 && j->a->rope <= CHUNK) {
        float scale[CHUNKS(j->width)];
        memcpy(scale, row + j->width, sizeof scale);
        key_from_int8(page, t, (const int8_t *)row, scale);
    } else { // scales of the cache are not those of a key
        float x[j->width];
        read_row(j, row, 0, j->width, x);
        key_from_floats(page, t, x);
    }
}

// The first `count` rows of a page, as keys and values.
static void read_page(const mla_job *j, const uint8_t *rows, int count, const memory *page) {
    if (!j->eight) {
        keys_from_bf16(page, (const uint16_t *)rows, count);
        return;
    }
    for (int t = 0; t < count; t++) read_key(j, rows + t * j->row_bytes, page, t);
    values_from_keys(page, count);
}

// ---- tokens to queries and latents -------------------------------------------------------------------------------

// Cosines and sines of a token's angles, one after the other.
static void find_angles(const mla_job *j, int64_t m) {
    float *to = j->angles + m * j->a->rope;
    for (int i = 0; i < j->a->rope / 2; i++) {
        float angle = (float)j->position[m] * j->a->frequency[i];
        to[2 * i] = cosf(angle);
        to[2 * i + 1] = sinf(angle);
    }
}

// Turns adjacent pairs of numbers (arXiv 2104.09864).
static void turn(const mla_job *j, float *pairs, int64_t m) {
    const float *angles = j->angles + m * j->a->rope;
    for (int i = 0; i < j->a->rope / 2; i++) {
        float even = pairs[2 * i], odd = pairs[2 * i + 1], c = angles[2 * i], s = angles[2 * i + 1];
        pairs[2 * i] = even * c - odd * s;
        pairs[2 * i + 1] = even * s + odd * c;
    }
}

static void into_cache(const mla_job *j, int64_t m) {
    const latent_attention *a = j->a;
    float *latent = j->latent + m * a->latent.rows;
    int32_t position = j->position[m];
    rms_norm_row(latent, a->latent_norm, a->rank, a->latent_eps, latent);
    turn(j, latent + a->rank, m);
    write_row(j, cache_row(j, j->whose[m], position), latent);
}

static float *head_query(const mla_job *j, int64_t m, int h) { return j->q + m * j->a->q.rows + h * j->key_dim; }

// ---- the absorbed form -------------------------------------------------------------------------------------------

// As many as there are pages, PARTS at most.
static int parts_of(int keys) {
    int pages = (keys + PAGE - 1) / PAGE;
    return pages < PARTS ? pages : PARTS;
}

// The first key of a part, or their end behind the last. They differ by a page.
static int part_begin(int keys, int part) {
    int64_t pages = (keys + PAGE - 1) / PAGE, first = part * pages / parts_of(keys) * PAGE;
    return first < keys ? (int)first : keys;
}

// Some keys that one token of one group meets. There are PARTS pieces of each, of which those behind the last are empty.
typedef struct {
    int64_t m, group;
    int from, end;
} piece;

static piece piece_at(const mla_job *j, int64_t i) {
    piece p = {.m = i / PARTS / j->groups, .group = i / PARTS % j->groups};
    int keys = p.m < j->answers ? j->position[p.m] + 1 : 0, part = (int)(i % PARTS);
    if (keys && part < parts_of(keys)) p.from = part_begin(keys, part), p.end = part_begin(keys, part + 1);
    return p;
}

// Its first page.
static stretch rows_of(const mla_job *j, piece p) {
    if (p.from >= p.end) return (stretch){NULL, NULL};
    const uint8_t *rows = cache_row(j, j->whose[p.m], p.from);
    return (stretch){rows, rows + PAGE * j->row_bytes};
}

static void attend(mla_job *j, int64_t i, int thread, int threads, ahead *soon) {
    const latent_attention *a = j->a;
    piece p = piece_at(j, i);
    if (p.from >= p.end) return;
    const factor *queries = (const factor *)(j->queries + (p.m * j->groups + p.group) * queries_bytes(j->width));
    const memory *page = j->page + thread;
    attention state = attention_begin(queries, j->width, a->rank, j->part_out + i * QUERIES * a->rank, soon);
    for (; p.from < p.end; p.from += PAGE) {
        int some = p.end - p.from < PAGE ? p.end - p.from : PAGE;
        read_page(j, cache_row(j, j->whose[p.m], p.from), some, page);
        piece next = {p.m, p.group, p.from + PAGE, p.end};
        // behind the last one most likely comes this, if threads are equally fast
        soon->first = rows_of(j, next.from < next.end ? next : piece_at(j, i + threads));
        attention_add(&state, page, 0, some, some, 0);
    }
    j->parts[i] = state;
}

// The queries of some heads, taken to latents.
static void absorb(mla_job *j, share heads) {
    const latent_attention *a = j->a;
    int64_t n = j->answers;
    for (int64_t h = heads.from; h < heads.to; h++) {
        int4_matrix key = int4_behind(a->key, h);
        int8_rows nope = int8_part(j->nope8, h * n, n);
        for (int64_t m = 0; m < n; m++) int8_quantize_row(head_query(j, m, (int)h), a->nope, nope, m);
        float *query = j->query + h * j->width;
        for (int64_t b = 0; b < key.rows / ROWS; b++)
            int4_times_int8(&key, b, &nope, 0, n, NULL, query + b * ROWS, a->heads * j->width);
        for (int64_t m = 0; m < n; m++)
            memcpy(query + m * a->heads * j->width + a->rank, head_query(j, m, (int)h) + a->nope,
                   sizeof(float) * (size_t)a->rope);
    }
}

// What some heads found in latents, taken to their values.
static void release(mla_job *j, share heads, float *mixed) {
    const latent_attention *a = j->a;
    int64_t n = j->answers;
    for (int64_t h = heads.from; h < heads.to; h++) {
        int4_matrix mix = int4_behind(a->mix, h);
        int8_rows of_head = int8_part(j->mixed8, h * n, n);
        for (int64_t m = 0; m < n; m++) {
            const attention *parts = j->parts + (m * j->groups + h / QUERIES) * PARTS;
            attention_end(parts, parts_of(j->position[m] + 1), (int)(h % QUERIES), mixed);
            int8_quantize_row(mixed, a->rank, of_head, m);
        }
        for (int64_t b = 0; b < mix.rows / ROWS; b++)
            int4_times_int8(&mix, b, &of_head, 0, n, NULL, j->attended + h * a->value + b * ROWS, a->heads * a->value);
    }
}

static void fill(mla_job *j, int thread, int threads) {
    const latent_attention *a = j->a;
    share chunks = share_of(CHUNKS(j->width), thread, threads);
    for (int64_t i = 0; i < j->answers * j->groups; i++) {
        const float *query[QUERIES];
        int first = (int)(i % j->groups) * QUERIES;
        for (int l = 0; l < QUERIES; l++)
            query[l] = first + l < a->heads ? j->query + (i / j->groups * a->heads + first + l) * j->width : NULL;
        queries_fill((factor *)(j->queries + i * queries_bytes(j->width)), query, 1.0f / sqrtf((float)j->key_dim),
                     j->width, (int)chunks.from, (int)chunks.to);
    }
}

static void answers(mla_job *j, share heads, ahead *soon, int thread, int threads) {
    absorb(j, heads);
    pool_barrier(j->p, soon);
    fill(j, thread, threads);
    soon->first = rows_of(j, piece_at(j, thread));
    pool_barrier(j->p, soon);
    for (int64_t i; (i = next_piece(&j->attended_parts)) < j->answers * j->groups * PARTS;)
        attend(j, i, thread, threads, soon);
    pool_barrier(j->p, soon);
    release(j, heads, row_of(j, thread));
}

// ---- the plain form ----------------------------------------------------------------------------------------------

// Keys and values of one head, of positions from `first` on.
static void expand(const mla_job *j, const segment *s, int h, const int8_rows *latents, int first, int thread) {
    const latent_attention *a = j->a;
    int4_matrix upright = int4_behind(a->upright, h), mix = int4_behind(a->mix, h);
    float *key = j->key + thread * PAGE * j->key_dim, *value = j->value + thread * PAGE * a->value;
    for (int64_t k = 0; k < latents->tokens; k += PAGE) {
        int64_t some = latents->tokens - k < PAGE ? latents->tokens - k : PAGE;
        for (int b = 0; b < a->nope / ROWS; b++)
            int4_times_int8(&upright, b, latents, k, some, NULL, key + b * ROWS, j->key_dim);
        for (int b = 0; b < a->value / ROWS; b++)
            int4_times_int8(&mix, b, latents, k, some, NULL, value + b * ROWS, a->value);
        for (int t = 0; t < some; t++) {
            read_row(j, cache_row(j, s, first + k + t), a->rank, j->width, key + t * j->key_dim + a->nope);
            key_from_floats(&j->expanded[thread], k + t, key + t * j->key_dim);
            value_from_floats(&j->expanded[thread], k + t, value + t * a->value);
        }
    }
}

static void begin_prompt(mla_job *j, int64_t first_token, int64_t tokens, int h, int64_t group, ahead *soon) {
    const latent_attention *a = j->a;
    int64_t longest = (j->longest + QUERIES - 1) / QUERIES, at = h * longest + group;
    const float *query[QUERIES];
    for (int l = 0; l < QUERIES; l++) {
        int64_t m = group * QUERIES + l;
        query[l] = m < tokens ? head_query(j, first_token + m, h) : NULL;
    }
    factor *queries = (factor *)(j->head_queries + at * queries_bytes(j->key_dim));
    queries_fill(queries, query, 1.0f / sqrtf((float)j->key_dim), j->key_dim, 0, CHUNKS(j->key_dim));
    j->states[at] = attention_begin(queries, j->key_dim, a->value, j->state_out + at * QUERIES * a->value, soon);
}

static void prompt(mla_job *j, const segment *s, int64_t first_token, share heads, ahead *soon, int thread,
                   int threads) {
    const latent_attention *a = j->a;
    int64_t longest = (j->longest + QUERIES - 1) / QUERIES, groups = (s->tokens + QUERIES - 1) / QUERIES;
    int end = s->start + s->tokens;
    float *latent = row_of(j, thread);
    for (int h = (int)heads.from; h < heads.to; h++)
        for (int64_t g = 0; g < groups; g++) begin_prompt(j, first_token, s->tokens, h, g, soon);

    for (int first = 0, turn = 0; first < end; first += EXPANDED, turn = !turn) {
        int count = end - first < EXPANDED ? end - first : EXPANDED;
        // one while the other may still be read by a thread that is behind
        int8_rows latents = int8_part(j->latents8[turn], 0, count);
        share mine = share_of(count, thread, threads);
        for (int64_t t = mine.from; t < mine.to; t++) {
            read_row(j, cache_row(j, s, first + t), 0, a->rank, latent);
            int8_quantize_row(latent, a->rank, latents, t);
        }
        pool_barrier(j->p, soon);
        for (int h = (int)heads.from; h < heads.to; h++) {
            expand(j, s, h, &latents, first, thread);
            for (int64_t g = 0; g < groups; g++) {
                int position = s->start + (int)g * QUERIES;
                int seen = position + QUERIES - first < count ? position + QUERIES - first : count;
                for (int k = 0; k < seen; k += KEYS)
                    attention_add(&j->states[h * longest + g], &j->expanded[thread], k,
                                  seen - k < KEYS ? seen - k : KEYS, position + 1 - first - k, 1);
            }
        }
    }
    for (int h = (int)heads.from; h < heads.to; h++)
        for (int64_t m = 0; m < s->tokens; m++)
            attention_end(&j->states[h * longest + m / QUERIES], 1, (int)(m % QUERIES),
                          j->attended + ((first_token + m) * a->heads + h) * a->value);
}

static void prompts(mla_job *j, share heads, ahead *soon, int thread, int threads) {
    int64_t first = j->answers;
    for (int i = 0; i < j->count; i++) {
        const segment *s = j->segments + i;
        if (!s->is_prompt) continue;
        prompt(j, s, first, heads, soon, thread, threads);
        first += s->tokens;
        // the next one begins where this one's last keys may still be read
        pool_barrier(j->p, soon);
    }
}

// ---- all of it ---------------------------------------------------------------------------------------------------

// Stretches in `work`'s list; what runs after this comes last.
enum { QUERY, LATENT, KEY, MIX, OUTPUT };

// The rows of a thread's heads in matrices of which each head has one.
static void ahead_add_heads(ahead *soon, int4_matrix first, share heads) {
    int64_t rows = first.rows / ROWS;
    ahead_add_rows(soon, &first, (share){heads.from * rows, heads.to * rows});
}

void latent_attention_ahead(const latent_attention *a, int thread, int threads, ahead *soon) {
    ahead_add_rows(soon, &a->q, share_of(a->q.rows / ROWS, thread, threads));
    ahead_add_rows(soon, &a->latent, share_of(a->latent.rows / ROWS, thread, threads));
}

static void work(void *context, int thread, int threads) {
    mla_job *j = context;
    const latent_attention *a = j->a;
    share mine = share_of(j->tokens, thread, threads), heads = share_of(a->heads, thread, threads);
    share rows = share_of(a->o.rows / ROWS, thread, threads);
    ahead soon = {0};
    latent_attention_ahead(a, thread, threads, &soon);
    ahead_add_heads(&soon, j->answers ? a->key : a->upright, heads);
    ahead_add_heads(&soon, a->mix, heads);
    ahead_add_rows(&soon, &a->o, rows);
    if (j->then) feed_forward_ahead(j->then, thread, threads, &soon);

    float *normed = row_of(j, thread);
    for (int64_t m = mine.from; m < mine.to; m++) {
        rms_norm_row(j->x + m * a->hidden, a->norm, a->hidden, a->eps, normed);
        int8_quantize_row(normed, a->hidden, j->input, m);
        find_angles(j, m);
    }
    pool_barrier(j->p, &soon);

    ahead_of(&soon, KEY);
    int4_share(&a->q, share_of(a->q.rows / ROWS, thread, threads), &j->input, j->q, a->q.rows);
    int4_share(&a->latent, share_of(a->latent.rows / ROWS, thread, threads), &j->input, j->latent, a->latent.rows);
    pool_barrier(j->p, &soon);

    ahead_of(&soon, MIX);
    for (int64_t m = mine.from; m < mine.to; m++) into_cache(j, m);
    for (int64_t m = 0; m < j->tokens; m++)
        for (int64_t h = heads.from; h < heads.to; h++) turn(j, head_query(j, m, (int)h) + a->nope, m);
    if (j->answers) answers(j, heads, &soon, thread, threads);
    if (j->longest) {
        pool_barrier(j->p, &soon);
        prompts(j, heads, &soon, thread, threads);
    }
    pool_barrier(j->p, &soon);

    ahead_of(&soon, OUTPUT);
    int64_t blocks = a->o.columns / COLUMNS, count = (int64_t)a->heads * a->value;
    share pieces = share_of(j->tokens * blocks, thread, threads);
    for (int64_t i = pieces.from; i < pieces.to; i++)
        int8_quantize_part(j->attended + i / blocks * count, count, j->attended8, i / blocks, i % blocks);
    pool_barrier(j->p, &soon);

    ahead_of(&soon, OUTPUT + 1);
    float part[TILE * ROWS];
    for (int64_t first = 0; first < j->tokens; first += TILE) {
        int64_t some = j->tokens - first < TILE ? j->tokens - first : TILE;
        for (int64_t b = rows.from; b < rows.to; b++) {
            int4_times_int8(&a->o, b, &j->attended8, first, some, NULL, part, ROWS);
            for (int64_t m = 0; m < some; m++)
                for (int64_t i = 0; i < ROWS && b * ROWS + i < a->hidden; i++)
                    j->x[(first + m) * a->hidden + b * ROWS + i] += part[m * ROWS + i];
        }
    }
    pool_barrier(j->p, &soon);
}

void latent_attention_run(pool *p, const latent_attention *a, float *x, const segment *segments, int32_t count,
                          void *cache, int32_t eight, const feed_forward *then) {
    mla_job j = {.p = p, .a = a, .x = x, .segments = segments, .count = count, .cache = cache, .eight = eight};
    j.then = then;
    j.width = a->rank + a->rope;
    int64_t scales = (a->rank + COLUMNS - 1) / COLUMNS + 1;
    j.row_bytes = eight ? j.width + scales * (int64_t)sizeof(float) : j.width * (int64_t)sizeof(uint16_t);
    j.key_dim = a->nope + a->rope;
    j.groups = (a->heads + QUERIES - 1) / QUERIES;
    for (int i = 0; i < count; i++) {
        j.tokens += segments[i].tokens;
        if (!segments[i].is_prompt) j.answers += segments[i].tokens;
        if (segments[i].is_prompt && segments[i].tokens > j.longest) j.longest = segments[i].tokens;
    }
    room r = {0};
    layout(&j, &r);
    r = (room){pool_room(p, r.used), 0};
    layout(&j, &r);
    int64_t m = 0;
    for (int i = 0; i < count; i++)
        for (int t = 0; t < segments[i].tokens; t++, m++) {
            j.whose[m] = segments + i;
            j.position[m] = segments[i].start + t;
        }
    pool_run(p, work, &j);
}
