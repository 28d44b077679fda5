/* Products of float inputs with weights in int8, and steps of LSTMs, whose gates are such products.

   Inputs are rounded to 255 levels of the largest of their row, sums are exact. A CPU with AVX-512 VNNI multiplies 64
   unsigned bytes by 64 signed ones and adds each four up in 32 bits. So an input is stored as its level + 128, and 128
   times the sum of a weight's row is taken off again (`offsets`). Weights lie in panels of 64 of their rows, the last filled
   up with zeros: four columns of each row, then the next four. */
#include "products.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows of inputs whose sums are kept in registers, and that a weight is read for at once; numbers of a weight from which on
   threads share a product. */
enum { TILE = 6, BLOCK = 96, SHARED = 1 << 19 };

static int64_t padded(int64_t size, int64_t to) { return (size + to - 1) / to * to; }

/* What is added to a product, in fp16: its row n is row which[n] of a matrix, or row n. Nothing: NULL. */
typedef struct {
    const uint16_t *rows;
    const int64_t *which;
} addend;

/* A step of an LSTM's state: memory and output after (n, H), and the memory before. Row n before is row from[n] of a matrix, and
   of the output row to[n]; NULL: row n. */
typedef struct {
    const float *before;
    const int64_t *from, *to;
    float *memory, *output;
    int64_t size;
} lstm;

/* Which row of a matrix row n is. */
INLINE int64_t row_of(const int64_t *which, int64_t n) { return which ? which[n] : n; }

/* Lay levels (rows, columns), -127 to 127, out in panels; and write -128 times the sum of each row. */
void pack(int64_t rows, int64_t columns, const int8_t *levels, int8_t *packed, int32_t *offsets) {
    memset(packed, 0, padded(rows, PANEL) * columns);
    for (int64_t row = 0; row < rows; row++) {
        int8_t *to = packed + row / PANEL * PANEL * columns + row % PANEL * 4;
        offsets[row] = 0;
        for (int64_t column = 0; column < columns; column++) {
            const int8_t level = levels[row * columns + column];
            to[column / 4 * 4 * PANEL + column % 4] = level;
            offsets[row] -= 128 * level;
        }
    }
}

/* Levels -127 to 127 of 16 numbers, so many times themselves. */
INLINE __m512i levels_of(floats x, floats times) { return _mm512_cvtps_epi32(_mm512_mul_ps(x, times)); }

/* Round row n of inputs to levels of its largest: the levels + 128; and what a level is worth, NaN if any input is not
   finite. */
static float round_row(int64_t parts, const input *inputs, int64_t n, uint8_t *levels) {
    const __m512i unsigned_bits = _mm512_set1_epi32(0x7fffffff); /* as whole numbers NaN are above all others */
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i most = _mm512_setzero_si512();
    for (const input *x = inputs; x < inputs + parts; x++) {
        const float *row = x->rows + row_of(x->which, n) * x->stride;
        for (int64_t at = 0; at < x->columns; at += 64) {
            floats some[4];
            load(some, row + at, x->columns - at, 0);
            EACH(4) most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(some[k]), unsigned_bits));
        }
    }
    const int32_t bits = _mm512_reduce_max_epi32(most);
    const float highest = _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32(bits)));
    const float step = highest > 1e-30f ? highest / 127 : 1e-30f;
    const floats times = all(1 / step);
    for (const input *x = inputs; x < inputs + parts; levels += padded(x++->columns, 4)) {
        const float *row = x->rows + row_of(x->which, n) * x->stride;
        int64_t at = 0;
        for (; at + 64 <= x->columns; at += 64) {
            __m512i whole[4];
            EACH(4) whole[k] = levels_of(_mm512_loadu_ps(row + at + 16 * k), times);
            const __m512i packed = _mm512_packs_epi16(_mm512_packs_epi32(whole[0], whole[1]),
                                                      _mm512_packs_epi32(whole[2], whole[3]));
            const __m512i bytes = _mm512_permutexvar_epi32(in_order, packed);
            _mm512_storeu_si512(levels + at, _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)));
        }
        for (; at < x->columns; at += 16) {
            const __m512i whole = levels_of(_mm512_maskz_loadu_ps(first_of(x->columns - at), row + at), times);
            _mm512_mask_cvtusepi32_storeu_epi8(levels + at, first_of(padded(x->columns, 4) - at),
                                               _mm512_add_epi32(whole, _mm512_set1_epi32(128)));
        }
    }
    return bits >= 0x7f800000 ? NAN : step;
}

rounded round_rows(int64_t n, int64_t parts, const input *inputs, int64_t width) {
    rounded found = {malloc(n * (width + (int64_t)sizeof(float))), NULL};
    if (!found.levels) abort();
    found.steps = (float *)(found.levels + n * width);
    for (int64_t row = 0; row < n; row++)
        found.steps[row] = round_row(parts, inputs, row, found.levels + row * width);
    return found;
}

/* Add the products of 64 unsigned and 64 signed bytes to 16 sums. (gcc moves the sums about if given the intrinsic.) */
INLINE void add_products(__m512i *sums, __m512i x, __m512i levels) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*sums) : "v"(x), "v"(levels));
}

/* Where the results of a tile go: to `out` (n, M), as they are, as tanh of them or in fp16, where what is larger is cut off; or
   through an LSTM's step. */
enum result { PLAIN, SQUASHED, HALVED, STEP };
typedef struct {
    enum result kind;
    void *out;
    int64_t stride, row, first; /* of out, and which row and column of the product its first is */
    addend plus;                /* of a step */
    lstm state;
} target;

/* A step of 16 cells of `count` rows, from their gates' sums i, f, o, g. */
INLINE void cells(const int count, floats (*sums)[4], const lstm *state, int64_t row, int64_t first) {
    const __mmask16 there = first_of(state->size - first);
    const int64_t at = row * state->size + first;
    floats squashed[TILE];
    EACH(count) {
        gates(sums[k]);
        const float *from = state->before + row_of(state->from, row + k) * state->size + first;
        const floats before = _mm512_maskz_loadu_ps(there, from);
        squashed[k] = _mm512_fmadd_ps(sums[k][1], before, _mm512_mul_ps(sums[k][0], sums[k][3]));
        _mm512_mask_storeu_ps(state->memory + at + k * state->size, there, squashed[k]);
    }
    tanhs(count, squashed);
    EACH(count)
        _mm512_mask_storeu_ps(state->output + row_of(state->to, row + k) * state->size + first, there,
                              _mm512_mul_ps(sums[k][2], squashed[k]));
}

/* The row of the addend that belongs to a row of inputs. */
INLINE const uint16_t *told(const addend *plus, int64_t row, int64_t width) {
    return plus->rows + row_of(plus->which, row) * width;
}

/* Where in out a number of the product stands. */
INLINE int64_t place(const target *to, int64_t row, int64_t column) {
    return (row - to->row) * to->stride + column - to->first;
}

/* Have what the end of a tile reads and writes brought to the cache meanwhile. */
INLINE void fetch(const int is_lstm, const target *to, int64_t rows, int64_t row, int64_t first) {
    if (!is_lstm) {
        const char *out = (const char *)to->out + place(to, row, first) * (to->kind == HALVED ? 2 : 4);
        EACH(4) __builtin_prefetch(out + 64 * k, 1);
        return;
    }
    if (to->plus.rows) EACH(2) _mm_prefetch(told(&to->plus, row, rows) + first + 32 * k, _MM_HINT_T0);
    const lstm *state = &to->state;
    _mm_prefetch(state->before + row_of(state->from, row) * state->size + first / 4, _MM_HINT_T0);
    __builtin_prefetch(state->memory + row * state->size + first / 4, 1);
    __builtin_prefetch(state->output + row_of(state->to, row) * state->size + first / 4, 1);
}

/* The sums of `count` inputs with a panel of a weight, and what becomes of them; the compiler knows the count. */
INLINE void tile(const int count, const int is_lstm, const weight *by, int64_t first, rounded x, int64_t row,
                 const target *to) {
    const int64_t columns = by->columns, left = by->rows - first;
    const int8_t *panel = by->levels + first * columns;
    const uint8_t *levels = x.levels + row * columns;
    const int64_t ahead = columns * PANEL + row / TILE % 4 * 64; /* a quarter of the next panel */
    __m512i sums[TILE][4];
#pragma GCC unroll 4
    for (int part = 0; part < 4; part++)
        EACH(count) sums[k][part] = _mm512_loadu_si512(by->offsets + first + 16 * part);
    EACH(count) fetch(is_lstm, to, by->rows, row + k, first);
    for (int64_t column = 0; column < columns; column += 4, panel += 4 * PANEL) {
        __m512i parts[4];
        _mm_prefetch(panel + ahead, _MM_HINT_T1);
        EACH(4) parts[k] = _mm512_loadu_si512(panel + 64 * k);
#pragma GCC unroll 6
        for (int each = 0; each < count; each++) {
            int32_t four;
            memcpy(&four, levels + each * columns + column, 4);
            EACH(4) add_products(&sums[each][k], _mm512_set1_epi32(four), parts[k]);
        }
    }
    floats found[TILE][4];
#pragma GCC unroll 6
    for (int each = 0; each < count; each++) {
        floats *sum = found[each], more[4];
        const floats step = all(x.steps[row + each]);
        EACH(4) sum[k] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[each][k]),
                                         _mm512_mul_ps(_mm512_loadu_ps(by->scales + first + 16 * k), step),
                                         _mm512_loadu_ps(by->bias + first + 16 * k));
        if (is_lstm && to->plus.rows) {
            load_halves(more, told(&to->plus, row + each, by->rows) + first);
            EACH(4) sum[k] = _mm512_add_ps(sum[k], more[k]);
        }
        if (is_lstm) continue;
        const int64_t at = place(to, row + each, first);
        if (to->kind == HALVED) {
            EACH(4) sum[k] = between(-65504.0f, 65504.0f, sum[k]);
            store_halves((uint16_t *)to->out + at, sum);
            continue;
        }
        if (to->kind == SQUASHED) tanhs(4, sum);
        store((float *)to->out + at, sum, left);
    }
    if (is_lstm) cells(count, found, &to->state, row, first / 4);
}

#define TILES(is_lstm)                                        \
    switch (count) {                                          \
    case 1: tile(1, is_lstm, by, first, x, row, to); break;   \
    case 2: tile(2, is_lstm, by, first, x, row, to); break;   \
    case 3: tile(3, is_lstm, by, first, x, row, to); break;   \
    case 4: tile(4, is_lstm, by, first, x, row, to); break;   \
    case 5: tile(5, is_lstm, by, first, x, row, to); break;   \
    default: tile(TILE, is_lstm, by, first, x, row, to);         \
    }

static void any_tile(int count, const weight *by, int64_t first, rounded x, int64_t row, const target *to) {
    TILES(0)
}

static void lstm_tile(int count, const weight *by, int64_t first, rounded x, int64_t row, const target *to) {
    TILES(1)
}

/* All tiles of some rows of inputs and of a weight. */
static void tiles(const weight *by, int64_t from, int64_t last, rounded x, int64_t start, int64_t end, const target *to) {
#pragma omp parallel for if ((last - from) * by->columns > SHARED)
    for (int64_t first = from; first < last; first += PANEL)
        for (int64_t row = start; row < end; row += TILE)
            (to->kind == STEP ? lstm_tile : any_tile)(end - row < TILE ? end - row : TILE, by, first, x, row, to);
}

void multiply_some(const weight *by, int64_t first, int64_t last, rounded x, int64_t row, int64_t end, float *out,
                   int64_t stride) {
    const target to = {PLAIN, out, stride, row, first, {NULL, NULL}, {NULL, NULL, NULL, NULL, NULL, 0}};
    tiles(by, first, last, x, row, end, &to);
}

/* All tiles of inputs (n, E) and a weight. */
static void every_tile(const weight *by, int64_t n, int64_t parts, const input *inputs, const target *to) {
    const rounded x = round_rows(n, parts, inputs, by->columns);
    for (int64_t block = 0; block < n; block += BLOCK)
        tiles(by, 0, by->rows, x, block, n < block + BLOCK ? n : block + BLOCK, to);
    free(x.levels);
}

/* Inputs times a weight (M, E), its bias added: to out (n, M); in fp16 only where M is a multiple of 64. */
void multiply(const weight *by, int64_t n, int64_t parts, const input *inputs, void *out, int result) {
    const target to = {(enum result)result, out, by->rows, 0, 0, {NULL, NULL}, {NULL, NULL, NULL, NULL, NULL, 0}};
    every_tile(by, n, parts, inputs, &to);
}

/* A step of LSTMs of so many cells, from inputs, their outputs before among them, and the addend: what else the gates are
   told; after rows `from` of the memory before. The weight and the addend have in each panel the gates i, f, o, g of 16 cells,
   filled up with zeros. */
void lstm_step(const weight *by, int64_t n, int64_t size, int64_t parts, const input *inputs, const uint16_t *plus,
               const int64_t *which, const float *before, const int64_t *from, float *memory, float *output) {
    const target to = {STEP, NULL, 0, 0, 0, {plus, which}, {before, from, NULL, memory, output, size}};
    every_tile(by, n, parts, inputs, &to);
}

/* One direction of a layer, of `steps` steps (below). */
static void read_through(const weight *by, int64_t direction, int64_t directions, int64_t steps, int64_t sentences, int64_t size,
                         const uint16_t *said, const int64_t *order, const int64_t *to, float *memory, float *output,
                         const float *nothing) {
    for (int64_t step = 0; step < steps; step++) {
        const int64_t now = (step * directions + direction) * sentences, next = now + directions * sentences;
        const input first = {nothing, NULL, 0, size}, later = {output, to + now - directions * sentences, size, size};
        const target here = {STEP, NULL, 0, 0, 0, {said, order + now},
                             {memory + now * size, NULL, to + now, memory + next * size, output, size}};
        every_tile(by, sentences, 1, step ? &later : &first, &here);
    }
}

/* A layer of LSTMs that read B sentences of T words in D directions. What words say stands in rows like the addend's, of which
   `order` (T, D, B) names those of each step, and `to` (T, D, B) the rows of the output that it is written to. Memories are
   (T + 1, D, B, H), the first of which are given; outputs before them are zero. Directions are read side by side where their
   products are not shared by threads, which would be made anew within them. */
void lstm_layer(const weight *const *by, int64_t directions, int64_t steps, int64_t sentences, int64_t size,
                const uint16_t *said, const int64_t *order, const int64_t *to, float *memory, float *output) {
    float *nothing = calloc(size, sizeof(float));
    if (!nothing) abort();
    if (directions > 1 && by[0]->rows * by[0]->columns <= SHARED) {
#pragma omp parallel for
        for (int64_t one = 0; one < directions; one++)
            read_through(by[one], one, directions, steps, sentences, size, said, order, to, memory, output, nothing);
    } else
        for (int64_t one = 0; one < directions; one++)
            read_through(by[one], one, directions, steps, sentences, size, said, order, to, memory, output, nothing);
    free(nothing);
}
