#include "latent.h"

#include <math.h>

#include "attention.h"

// Keys that are expanded before queries meet them: with their values they stay in a core's second cache.
#define EXPANDED 512
// A sequence's keys are cut into so many parts at most, for as many threads.
#define PARTS 8
#define TILE 64

typedef struct {
    pool *p;
    const latent_attention *a;
    float *x;
    const segment *segments;
    int32_t count;
    uint16_t *cache;

    int64_t tokens, answers; // of all segments; of those that are no prompt
    int64_t longest;         // prompt
    int width, key_dim;      // rank + rope; nope + rope
    int groups;              // of heads, one a lane
    const segment **whose;   // [tokens]
    int32_t *position;       // [tokens]

    float *normed;     // [threads, hidden]
    int8_rows input;   // [tokens]
    float *q, *latent; // [tokens, q.rows], [tokens, latent.rows]

    int8_rows nope8, mixed8; // [heads, answers]
    float *query, *mixed;    // [answers, heads, width], [answers, heads, rank]
    char *queries;           // [answers, groups]
    attention *parts;        // [answers, groups, PARTS]
    float *part_out;         // [answers, groups, PARTS, lanes, rank]

    char *prompt; // [threads, prompt_bytes]
    int64_t prompt_bytes;

    float *attended; // [tokens, heads · value]
    int8_rows attended8;
} mla_job;

static void prompt_layout(const mla_job *j, room *r, lanes *key, lanes *mix, float **decoded, uint16_t **keys,
                          uint16_t **values, char **queries, attention **states, float **outs) {
    const latent_attention *a = j->a;
    int64_t groups = (j->longest + LANES - 1) / LANES, one = lanes_bytes(a->rank);
    for (int i = 0; i < a->nope / LANES; i++) key[i] = lanes_at(take(r, one), a->rank);
    for (int i = 0; i < a->value / LANES; i++) mix[i] = lanes_at(take(r, one), a->rank);
    int64_t widest = a->key.columns > a->mix.columns ? a->key.columns : a->mix.columns;
    *decoded = take(r, ROWS * widest * (int64_t)sizeof(float));
    *keys = take(r, EXPANDED * j->key_dim * (int64_t)sizeof(uint16_t));
    *values = take(r, EXPANDED * a->value * (int64_t)sizeof(uint16_t));
    *queries = take(r, groups * lanes_bytes(j->key_dim));
    *states = take(r, groups * (int64_t)sizeof(attention));
    *outs = take(r, groups * LANES * a->value * (int64_t)sizeof(float));
}

static void layout(mla_job *j, room *r) {
    const latent_attention *a = j->a;
    int64_t floats = sizeof(float), threads = pool_threads(j->p), groups = j->answers * j->groups;
    j->whose = take(r, j->tokens * (int64_t)sizeof(segment *));
    j->position = take(r, j->tokens * (int64_t)sizeof(int32_t));
    j->normed = take(r, threads * a->hidden * floats);
    j->input = take_int8_rows(r, j->tokens, a->q.columns);
    j->q = take(r, j->tokens * a->q.rows * floats);
    j->latent = take(r, j->tokens * a->latent.rows * floats);
    j->nope8 = take_int8_rows(r, j->answers * a->heads, a->key.columns);
    j->mixed8 = take_int8_rows(r, j->answers * a->heads, a->mix.columns);
    j->query = take(r, j->answers * a->heads * j->width * floats);
    j->mixed = take(r, threads * a->rank * floats);
    j->queries = take(r, groups * lanes_bytes(j->width));
    j->parts = take(r, groups * PARTS * (int64_t)sizeof(attention));
    j->part_out = take(r, groups * PARTS * LANES * a->rank * floats);
    j->attended = take(r, j->tokens * a->heads * a->value * floats);
    j->attended8 = take_int8_rows(r, j->tokens, a->o.columns);
    lanes key[a->nope / LANES], mix[a->value / LANES];
    float *decoded, *outs;
    uint16_t *keys, *values;
    char *queries;
    attention *states;
    room one = {0};
    if (j->longest) prompt_layout(j, &one, key, mix, &decoded, &keys, &values, &queries, &states, &outs);
    j->prompt_bytes = one.used;
    j->prompt = take(r, threads * j->prompt_bytes);
}

static const uint16_t *page_of(const mla_job *j, const segment *s, int64_t position) {
    return j->cache + (int64_t)s->pages[position / PAGE] * PAGE * j->width;
}

// ---- tokens to queries and latents -------------------------------------------------------------------------------

// Turns adjacent pairs of numbers (arXiv 2104.09864).
static void turn(const latent_attention *a, float *pairs, float position) {
    for (int i = 0; i < a->rope / 2; i++) {
        float angle = position * a->frequency[i], c = cosf(angle), s = sinf(angle);
        float even = pairs[2 * i], odd = pairs[2 * i + 1];
        pairs[2 * i] = even * c - odd * s;
        pairs[2 * i + 1] = even * s + odd * c;
    }
}

static void into_cache(const mla_job *j, int64_t m) {
    const latent_attention *a = j->a;
    float *latent = j->latent + m * a->latent.rows;
    int32_t position = j->position[m];
    rms_norm_row(latent, a->latent_norm, a->rank, a->latent_eps, latent);
    turn(a, latent + a->rank, (float)position);
    uint16_t *row = (uint16_t *)page_of(j, j->whose[m], position) + (position % PAGE) * j->width;
    for (int d = 0; d < j->width; d++) {
        uint32_t bits;
        memcpy(&bits, latent + d, sizeof bits);
        row[d] = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
}

static float *head_query(const mla_job *j, int64_t m, int h) { return j->q + m * j->a->q.rows + h * j->key_dim; }

// ---- the absorbed form -------------------------------------------------------------------------------------------

static int part_length(int keys) {
    int length = (keys + PARTS - 1) / PARTS;
    return (int)padded(length, PAGE);
}

static void attend_part(mla_job *j, int64_t m, int group, int part) {
    const latent_attention *a = j->a;
    int keys = j->position[m] + 1, length = part_length(keys), from = part * length;
    int64_t at = (m * j->groups + group) * PARTS + part;
    lanes query = lanes_at(j->queries + (m * j->groups + group) * lanes_bytes(j->width), j->width);
    attention state = attention_begin(query, a->rank, j->part_out + at * LANES * a->rank);
    int end = from + length < keys ? from + length : keys;
    for (int k = from; k < end; k += PAGE) {
        const uint16_t *page = page_of(j, j->whose[m], k);
        int some = end - k < PAGE ? end - k : PAGE;
        int32_t visible[LANES];
        for (int l = 0; l < LANES; l++) visible[l] = some;
        attention_add(&state, page, j->width, page, j->width, some, visible);
    }
    j->parts[at] = state;
}

static void answers(mla_job *j, int thread, int threads) {
    const latent_attention *a = j->a;
    int64_t n = j->answers;
    float scale = 1.0f / sqrtf((float)j->key_dim);

    share mine = share_of(n * a->heads, thread, threads);
    for (int64_t i = mine.from; i < mine.to; i++)
        int8_quantize_row(head_query(j, i % n, (int)(i / n)), a->nope, int8_part(j->nope8, i / n * n, n), i % n);
    pool_barrier(j->p);

    int64_t blocks = a->key.rows / ROWS;
    mine = share_of(a->heads * blocks, thread, threads);
    for (int64_t i = mine.from; i < mine.to; i++) {
        int64_t h = i / blocks, b = i % blocks;
        int4_matrix key = int4_behind(a->key, h);
        int8_rows nope = int8_part(j->nope8, h * n, n);
        int4_times_int8(&key, b, &nope, 0, n, j->query + h * j->width + b * ROWS, a->heads * j->width);
    }
    mine = share_of(n * a->heads, thread, threads);
    for (int64_t i = mine.from; i < mine.to; i++)
        memcpy(j->query + i * j->width + a->rank, head_query(j, i / a->heads, (int)(i % a->heads)) + a->nope,
               sizeof(float) * (size_t)a->rope);
    pool_barrier(j->p);

    mine = share_of(j->width / 2, thread, threads);
    for (int64_t i = 0; i < n * j->groups; i++) {
        const float *lane[LANES];
        int first = (int)(i % j->groups) * LANES;
        for (int l = 0; l < LANES; l++)
            lane[l] = first + l < a->heads ? j->query + ((i / j->groups) * a->heads + first + l) * j->width : NULL;
        lanes query = lanes_at(j->queries + i * lanes_bytes(j->width), j->width);
        lanes_fill(query, lane, scale, (int)mine.from * 2, (int)mine.to * 2);
    }
    pool_barrier(j->p);

    int64_t unit = 0;
    for (int64_t i = 0; i < n * j->groups; i++) {
        int keys = j->position[i / j->groups] + 1, length = part_length(keys);
        for (int part = 0; part * length < keys; part++)
            if (unit++ % threads == thread) attend_part(j, i / j->groups, (int)(i % j->groups), part);
    }
    pool_barrier(j->p);

    mine = share_of(n * a->heads, thread, threads);
    float *mixed = j->mixed + thread * a->rank;
    for (int64_t i = mine.from; i < mine.to; i++) {
        int64_t m = i % n, h = i / n;
        int keys = j->position[m] + 1, length = part_length(keys);
        const attention *parts = j->parts + (m * j->groups + h / LANES) * PARTS;
        attention_end(parts, (keys + length - 1) / length, (int)(h % LANES), mixed);
        int8_quantize_row(mixed, a->rank, int8_part(j->mixed8, h * n, n), m);
    }
    pool_barrier(j->p);

    blocks = a->mix.rows / ROWS;
    mine = share_of(a->heads * blocks, thread, threads);
    for (int64_t i = mine.from; i < mine.to; i++) {
        int64_t h = i / blocks, b = i % blocks;
        int4_matrix mix = int4_behind(a->mix, h);
        int8_rows mixed_of_head = int8_part(j->mixed8, h * n, n);
        int4_times_int8(&mix, b, &mixed_of_head, 0, n, j->attended + h * a->value + b * ROWS, a->heads * a->value);
    }
}

// ---- the plain form ----------------------------------------------------------------------------------------------

// Keys [count, key_dim] and values [count, value] of one head, of positions from `first` on.
static void expand(const mla_job *j, const segment *s, const lanes *key, const lanes *mix, int first, int count,
                   uint16_t *keys, uint16_t *values) {
    const latent_attention *a = j->a;
    floats out[PAGE];
    for (int k = 0; k < count; k += PAGE) {
        const uint16_t *page = page_of(j, s, first + k);
        int some = count - k < PAGE ? count - k : PAGE;
        for (int i = 0; i < a->nope / LANES; i++) {
            lanes_times(key[i], page, j->width, some, out);
            for (int t = 0; t < some; t++) to_bf16(keys + (k + t) * j->key_dim + i * LANES, out[t]);
        }
        for (int t = 0; t < some; t++)
            memcpy(keys + (k + t) * j->key_dim + a->nope, page + t * j->width + a->rank,
                   sizeof(uint16_t) * (size_t)a->rope);
        for (int i = 0; i < a->value / LANES; i++) {
            lanes_times(mix[i], page, j->width, some, out);
            for (int t = 0; t < some; t++) to_bf16(values + (k + t) * a->value + i * LANES, out[t]);
        }
    }
}

static void prompt_head(mla_job *j, const segment *s, int64_t first_token, int h, int thread) {
    const latent_attention *a = j->a;
    lanes key[a->nope / LANES], mix[a->value / LANES];
    float *decoded, *outs;
    uint16_t *keys, *values;
    char *queries;
    attention *states;
    room r = {j->prompt + thread * j->prompt_bytes, 0};
    prompt_layout(j, &r, key, mix, &decoded, &keys, &values, &queries, &states, &outs);

    int4_matrix of_key = int4_behind(a->key, h), of_mix = int4_behind(a->mix, h);
    for (int b = 0; b < a->rank / ROWS; b++) {
        int4_decode(&of_key, b, decoded);
        for (int i = 0; i < a->nope / LANES; i++)
            for (int row = 0; row < ROWS; row++)
                memcpy(key[i].plain + (b * ROWS + row) * LANES, decoded + row * a->key.columns + i * LANES,
                       sizeof(float) * LANES);
    }
    for (int i = 0; i < a->nope / LANES; i++) lanes_pair(key[i], 0, a->rank);
    for (int b = 0; b < a->value / ROWS; b++) {
        int4_decode(&of_mix, b, decoded);
        for (int row = 0; row < ROWS; row += LANES) {
            const float *lane[LANES];
            for (int l = 0; l < LANES; l++) lane[l] = decoded + (row + l) * a->mix.columns;
            lanes_fill(mix[(b * ROWS + row) / LANES], lane, 1.0f, 0, a->rank);
        }
    }

    int groups = (s->tokens + LANES - 1) / LANES, end = s->start + s->tokens;
    float scale = 1.0f / sqrtf((float)j->key_dim);
    for (int g = 0; g < groups; g++) {
        const float *lane[LANES];
        for (int l = 0; l < LANES; l++) {
            int m = g * LANES + l;
            lane[l] = m < s->tokens ? head_query(j, first_token + m, h) : NULL;
        }
        lanes query = lanes_at(queries + g * lanes_bytes(j->key_dim), j->key_dim);
        lanes_fill(query, lane, scale, 0, j->key_dim);
        states[g] = attention_begin(query, a->value, outs + (int64_t)g * LANES * a->value);
    }
    for (int first = 0; first < end; first += EXPANDED) {
        int count = end - first < EXPANDED ? end - first : EXPANDED;
        expand(j, s, key, mix, first, count, keys, values);
        for (int g = 0; g < groups; g++) {
            int position = s->start + g * LANES;
            for (int k = 0; k < count && first + k < position + LANES; k += PAGE) {
                int32_t visible[LANES];
                for (int l = 0; l < LANES; l++) visible[l] = position + l + 1 - first - k;
                attention_add(&states[g], keys + k * j->key_dim, j->key_dim, values + k * a->value, a->value,
                              count - k < PAGE ? count - k : PAGE, visible);
            }
        }
    }
    for (int m = 0; m < s->tokens; m++)
        attention_end(&states[m / LANES], 1, m % LANES,
                      j->attended + ((first_token + m) * a->heads + h) * a->value);
}

static void prompts(mla_job *j, int thread, int threads) {
    int64_t first = j->answers, unit = 0;
    for (int i = 0; i < j->count; i++) {
        const segment *s = j->segments + i;
        if (!s->is_prompt) continue;
        for (int h = 0; h < j->a->heads; h++)
            if (unit++ % threads == thread) prompt_head(j, s, first, h, thread);
        first += s->tokens;
    }
}

// ---- all of it ---------------------------------------------------------------------------------------------------

static void work(void *context, int thread, int threads) {
    mla_job *j = context;
    const latent_attention *a = j->a;

    share mine = share_of(j->tokens, thread, threads);
    float *normed = j->normed + thread * a->hidden;
    for (int64_t m = mine.from; m < mine.to; m++) {
        rms_norm_row(j->x + m * a->hidden, a->norm, a->hidden, a->eps, normed);
        int8_quantize_row(normed, a->hidden, j->input, m);
    }
    pool_barrier(j->p);

    int4_share(&a->q, share_of(a->q.rows / ROWS, thread, threads), &j->input, j->q, a->q.rows);
    int4_share(&a->latent, share_of(a->latent.rows / ROWS, thread, threads), &j->input, j->latent, a->latent.rows);
    pool_barrier(j->p);

    for (int64_t m = mine.from; m < mine.to; m++) {
        into_cache(j, m);
        for (int h = 0; h < a->heads; h++) turn(a, head_query(j, m, h) + a->nope, (float)j->position[m]);
    }
    pool_barrier(j->p);

    if (j->answers) answers(j, thread, threads);
    if (j->longest) prompts(j, thread, threads);
    pool_barrier(j->p);

    for (int64_t m = mine.from; m < mine.to; m++) {
        int64_t count = (int64_t)a->heads * a->value;
        int8_quantize_row(j->attended + m * count, count, j->attended8, m);
    }
    pool_barrier(j->p);

    float part[TILE * ROWS];
    share rows = share_of(a->o.rows / ROWS, thread, threads);
    for (int64_t first = 0; first < j->tokens; first += TILE) {
        int64_t some = j->tokens - first < TILE ? j->tokens - first : TILE;
        for (int64_t b = rows.from; b < rows.to; b++) {
            int4_times_int8(&a->o, b, &j->attended8, first, some, part, ROWS);
            for (int64_t m = 0; m < some; m++)
                for (int64_t i = 0; i < ROWS && b * ROWS + i < a->hidden; i++)
                    j->x[(first + m) * a->hidden + b * ROWS + i] += part[m * ROWS + i];
        }
    }
}

void latent_attention_run(pool *p, const latent_attention *a, float *x, const segment *segments, int32_t count,
                          uint16_t *cache) {
    mla_job j = {.p = p, .a = a, .x = x, .segments = segments, .count = count, .cache = cache};
    j.width = a->rank + a->rope;
    j.key_dim = a->nope + a->rope;
    j.groups = (a->heads + LANES - 1) / LANES;
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
