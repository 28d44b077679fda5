/* What a search needs of the words that may come next: their log-probabilities, and the largest of them. And attention:
   how much each value of a memory is looked at, and what they say to their readers, so weighed. */
#include <math.h>
#include <stdlib.h>

#include "products.h"

/* Log-probabilities of logits (n, V), in their place. */
void log_softmax(int64_t n, int64_t size, float *logits) {
    for (int64_t row = 0; row < n; row++, logits += size) {
        floats x[4], most[4], sums[4];
        EACH(4) most[k] = all(-INFINITY);
        EACH(4) sums[k] = _mm512_setzero_ps();
        for (int64_t at = 0; at < size; at += 64) {
            load(x, logits + at, size - at, -INFINITY);
            EACH(4) most[k] = _mm512_max_ps(most[k], x[k]);
        }
        const floats highest = all(_mm512_reduce_max_ps(largest_of_four(most)));
        for (int64_t at = 0; at < size; at += 64) {
            load(x, logits + at, size - at, -INFINITY);
            EACH(4) x[k] = _mm512_max_ps(all(-86.0f), _mm512_sub_ps(x[k], highest));
            exponentials(4, x);
            EACH(4) sums[k] = _mm512_add_ps(sums[k], x[k]);
        }
        const floats total = all(logf(sum_of_four(sums)));
        for (int64_t at = 0; at < size; at += 64) {
            load(x, logits + at, size - at, 0);
            EACH(4) x[k] = _mm512_sub_ps(_mm512_sub_ps(x[k], highest), total);
            store(logits + at, x, size - at);
        }
    }
}

/* What the `most` largest of a row are not below: the last of the most largest of the largest of 64 parts of it. */
static float least_of_largest(int64_t size, int64_t most, const float *x) {
    floats parts[4], some[4];
    EACH(4) parts[k] = all(-INFINITY);
    for (int64_t at = 0; at < size; at += 64) {
        load(some, x + at, size - at, -INFINITY);
        EACH(4) parts[k] = _mm512_max_ps(parts[k], some[k]);
    }
    float least = INFINITY;
    for (int64_t found = 0; found < most && least > -INFINITY; found++) {
        least = _mm512_reduce_max_ps(largest_of_four(parts));
        EACH(4) parts[k] = _mm512_mask_mov_ps(
            parts[k], _mm512_cmp_ps_mask(parts[k], all(least), _CMP_GE_OQ), all(-INFINITY));
    }
    return least;
}

/* NaN is above all, so that it is seen. */
INLINE int above(float one, float other) { return one > other || (one != one && other == other); }

/* The largest that were found: `most` of them at most, how many there are. */
typedef struct {
    int64_t most, found;
    float *values;
    int64_t *places;
} ranking;

/* Put a value among them, behind its equals. */
INLINE void put(ranking *in, float value, int64_t place) {
    int64_t to = in->found;
    if (to == in->most && !above(value, in->values[--to])) return;
    for (; to && above(value, in->values[to - 1]); to--)
        in->values[to] = in->values[to - 1], in->places[to] = in->places[to - 1];
    in->values[to] = value, in->places[to] = place;
    in->found += in->found < in->most;
}

/* The largest of a row (V), whose places are counted from `first` on. */
static void largest_of_row(int64_t first, int64_t size, const float *x, ranking *in) {
    const int full = in->found == in->most;
    const floats least = all(full ? in->values[in->most - 1] : least_of_largest(size, in->most, x));
    for (int64_t at = 0; at < size; at += 64) {
        floats some[4];
        uint64_t good = 0;
        load(some, x + at, size - at, -INFINITY);
        EACH(4) good |= (uint64_t)_mm512_cmp_ps_mask(some[k], least, _CMP_NLT_UQ) << 16 * k;
        if (size - at < 64) good &= ((uint64_t)1 << (size - at)) - 1;
        for (; good; good &= good - 1) {
            const int64_t place = at + __builtin_ctzll(good);
            put(in, x[place], first + place);
        }
    }
}

/* The largest of each row of x (n, V), largest first and of equals the first; and their places. */
void largest(int64_t n, int64_t size, int64_t most, const float *x, float *values, int64_t *places) {
    for (int64_t row = 0; row < n; row++) {
        ranking in = {most, 0, values + row * most, places + row * most};
        largest_of_row(0, size, x + row * size, &in);
    }
}

/* Of B sentences the C best of W hypotheses, each worth `before` (B, W), by words worth x (B, W, V): what they are worth,
   the words, by their numbers or `named` (B, W, V), and the hypotheses. Of each hypothesis the `most` best compete. */
void best(int64_t sentences, int64_t width, int64_t size, int64_t most, int64_t count, const float *before, const float *x,
          const int64_t *named, float *scores, int64_t *words, int64_t *parents) {
    float values[most];
    int64_t places[most];
    for (int64_t row = 0; row < sentences; row++, scores += count, words += count, parents += count) {
        ranking chosen = {count, 0, scores, parents};
        for (int64_t parent = 0; parent < width; parent++, x += size) {
            ranking in = {most, 0, values, places};
            largest_of_row(0, size, x, &in);
            for (int64_t rank = 0; rank < most; rank++)
                put(&chosen, before[row * width + parent] + values[rank], parent * size + places[rank]);
        }
        for (int64_t rank = 0; rank < count; rank++) {
            words[rank] = named ? named[row * width * size + parents[rank]] : parents[rank] % size;
            parents[rank] /= size;
        }
    }
}

/* Of candidates (B, C) the first `opening` that do not end (and behind them, were these too few, the first that do): what they
   are worth, the words, and the rows that they extend, W a sentence. Of the first `size` those that end: what they are worth,
   -inf for the others, and the rows. Returns how many end. */
int64_t parted(int64_t sentences, int64_t count, int64_t width, int64_t opening, int64_t size, int64_t eos,
               const float *scores, const int64_t *words, const int64_t *parents, float *opened, int64_t *said, int64_t *rows,
               float *ended, int64_t *after) {
    int64_t ends = 0;
    for (int64_t row = 0; row < sentences; row++, scores += count, words += count, parents += count) {
        int64_t open = 0;
        for (int end = 0; end < 2; end++)
            for (int64_t rank = 0; rank < count && open < opening; rank++)
                if ((words[rank] == eos) == end) {
                    *opened++ = scores[rank], *said++ = words[rank], *rows++ = row * width + parents[rank];
                    open++;
                }
        for (int64_t rank = 0; rank < size; rank++) {
            const int end = words[rank] == eos;
            *ended++ = end ? scores[rank] : -INFINITY, *after++ = row * width + parents[rank];
            ends += end;
        }
    }
    return ends;
}

/* What is known of a row's words once some have been seen: the largest logit, the sum of e^(x - highest), that of the word
   that ends, and the best of the others. */
typedef struct {
    float highest, sum, end;
    ranking best;
} outlook;

/* See `size` more words of a row, from `first` on; what is no choice is written over. */
static void see(outlook *row, int64_t first, int64_t size, float *x, int64_t end, int64_t silent, const int64_t *never) {
    floats some[4], most[4], sums[4];
    EACH(4) most[k] = all(-INFINITY);
    for (int64_t at = 0; at < size; at += 64) {
        load(some, x + at, size - at, -INFINITY);
        EACH(4) most[k] = _mm512_max_ps(most[k], some[k]);
    }
    const float highest = _mm512_reduce_max_ps(largest_of_four(most));
    if (!(highest <= row->highest)) row->sum *= expf(row->highest - highest), row->highest = highest;
    EACH(4) sums[k] = _mm512_setzero_ps();
    for (int64_t at = 0; at < size; at += 64) {
        load(some, x + at, size - at, -INFINITY);
        EACH(4) some[k] = _mm512_max_ps(all(-86.0f), _mm512_sub_ps(some[k], all(row->highest)));
        exponentials(4, some);
        EACH(4) sums[k] = _mm512_add_ps(sums[k], some[k]);
    }
    EACH(2) sums[k] = _mm512_add_ps(sums[k], sums[k + 2]);
    row->sum += _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
    if (end >= first && end < first + size) row->end = x[end - first], x[end - first] = -INFINITY;
    for (const int64_t *word = never; word < never + silent; word++)
        if (*word >= first && *word < first + size) x[*word - first] = -INFINITY;
    if (row->best.found < row->best.most || !(highest <= row->best.values[row->best.most - 1]))
        largest_of_row(first, size, x, &row->best);
}

/* Logits at once, columns seen together, logits from which on threads pay, and rows at once. */
enum { ROOM = 1 << 16, SOME = 4 * PANEL, LARGE = 1 << 14, ROWS = 192 };

/* Of an input (n, E) times a weight (V, E), which are logits: of each row the log-probability of the word that ends, and of
   the `count` best of the others but those that are said never; and the words, (n, 1 + count). What all words are worth is
   written nowhere: it is looked at some columns at a time, while it is in the cache. */
void offer(const weight *by, int64_t n, const input *x, int64_t count, int64_t end, int64_t silent, const int64_t *never,
           float *log_probs, int64_t *words) {
    const rounded levels = round_rows(n, 1, x, by->columns);
    for (int64_t block = 0; block < n; block += ROWS) {
        const int64_t rows = n - block < ROWS ? n - block : ROWS, fit = ROOM / rows / SOME * SOME;
        const int64_t size = fit > SOME ? fit : SOME;
        float *logits = malloc(rows * size * sizeof(float));
        outlook seen[ROWS];
        if (!logits) abort();
        for (int64_t row = 0; row < rows; row++) {
            const int64_t at = (block + row) * (1 + count);
            seen[row] = (outlook){-INFINITY, 0, 0, {count, 0, log_probs + at + 1, words + at + 1}};
        }
        for (int64_t first = 0; first < by->rows; first += size) {
            const int64_t some = by->rows - first < size ? by->rows - first : size;
            multiply_some(by, first, first + some, levels, block, block + rows, logits, size);
#pragma omp parallel for if (rows * some > LARGE)
            for (int64_t row = 0; row < rows; row++)
                for (int64_t part = 0; part < some; part += SOME)
                    see(&seen[row], first + part, some - part < SOME ? some - part : SOME, logits + row * size + part, end,
                        silent, never);
        }
        for (int64_t row = 0; row < rows; row++) {
            const float total = logf(seen[row].sum);
            float *found = log_probs + (block + row) * (1 + count);
            words[(block + row) * (1 + count)] = end, found[0] = seen[row].end;
            for (int64_t rank = 0; rank <= count; rank++) found[rank] = (found[rank] - seen[row].highest) - total;
        }
        free(logits);
    }
    free(levels.levels);
}

/* What values say to so many rows, `said` (S, G) in fp16, weighed by (rows, S): written in fp16; or added to floats, of
   which tanh is taken. */
INLINE void weigh_rows(const int rows, int64_t values, int64_t size, const float *weights, const uint16_t *said,
                       uint16_t *out, float *squashed) {
    for (int64_t at = 0; at < size; at += 64) {
        floats sums[6][4];
        for (int64_t value = 0; value < values; value++)
            EACH(2) _mm_prefetch(said + value * size + at + 64 + 32 * k, _MM_HINT_T0);
#pragma GCC unroll 6
        for (int row = 0; row < rows; row++)
            EACH(4) sums[row][k] =
                squashed ? _mm512_loadu_ps(squashed + row * size + at + 16 * k) : _mm512_setzero_ps();
        for (int64_t value = 0; value < values; value++) {
            floats heard[4];
            load_halves(heard, said + value * size + at);
#pragma GCC unroll 6
            for (int row = 0; row < rows; row++)
                EACH(4) sums[row][k] = _mm512_fmadd_ps(all(weights[row * values + value]), heard[k], sums[row][k]);
        }
#pragma GCC unroll 6
        for (int row = 0; row < rows; row++) {
            if (!squashed) {
                store_halves(out + row * size + at, sums[row]);
                continue;
            }
            tanhs(4, sums[row]);
            EACH(4) _mm512_storeu_ps(squashed + row * size + at + 16 * k, sums[row][k]);
        }
    }
}

/* The same of B sentences, said (B, S, G), G a multiple of 64, weighed by (B, K, S), to out or squashed (B, K, G). */
void weigh(int64_t sentences, int64_t each, int64_t values, int64_t size, const float *weights, const uint16_t *said,
           uint16_t *out, float *squashed) {
    for (int64_t sentence = 0; sentence < sentences; sentence++, said += values * size)
        for (int64_t left = each; left > 0;) {
            const int64_t rows = left < 6 ? left : 6;
            switch (rows) {
            case 1: weigh_rows(1, values, size, weights, said, out, squashed); break;
            case 2: weigh_rows(2, values, size, weights, said, out, squashed); break;
            case 3: weigh_rows(3, values, size, weights, said, out, squashed); break;
            case 4: weigh_rows(4, values, size, weights, said, out, squashed); break;
            case 5: weigh_rows(5, values, size, weights, said, out, squashed); break;
            default: weigh_rows(6, values, size, weights, said, out, squashed);
            }
            left -= rows, weights += rows * values;
            if (squashed) squashed += rows * size;
            else out += rows * size;
        }
}

/* 64 numbers of an array, in fp16 or float32, where there are so many. */
INLINE void load_either(const int half, floats *found, const void *x, int64_t at, int64_t left) {
    if (!half)
        load(found, (const float *)x + at, left, 0);
    else if (left >= 64)
        load_halves(found, (const uint16_t *)x + at);
    else
        EACH(4) found[k] = _mm512_cvtph_ps(
            _mm256_maskz_loadu_epi16(first_of(left - 16 * k), (const uint16_t *)x + at + 16 * k));
}

INLINE float dot(const int half, int64_t size, const float *x, const void *y, int64_t from) {
    floats sums[4], one[4], other[4];
    EACH(4) sums[k] = _mm512_setzero_ps();
    for (int64_t at = 0; at < size; at += 64) {
        load(one, x + at, size - at, 0);
        load_either(half, other, y, from + at, size - at);
        EACH(4) sums[k] = _mm512_fmadd_ps(one[k], other[k], sums[k]);
    }
    EACH(2) sums[k] = _mm512_add_ps(sums[k], sums[k + 2]);
    return _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
}

/* Have a row of an array brought to the cache meanwhile. */
INLINE void fetch(const int half, const void *x, int64_t row, int64_t size) {
    const int64_t bytes = size * (half ? 2 : 4);
    for (int64_t at = 0; at < bytes; at += 64) _mm_prefetch((const char *)x + row * bytes + at, _MM_HINT_T1);
}

/* Softmax of a row, in its place, where the mask is 1; 0 elsewhere. */
static void softmax(int64_t size, float *x, const uint8_t *mask) {
    float highest = -INFINITY, sum = 0;
    for (int64_t at = 0; at < size; at++)
        if (mask[at] && above(x[at], highest)) highest = x[at];
    for (int64_t at = 0; at < size; at += 16) {
        const __mmask16 there = first_of(size - at);
        const __mmask16 words = _mm_mask_test_epi8_mask(there, _mm_maskz_loadu_epi8(there, mask + at), _mm_set1_epi8(-1));
        floats power = _mm512_max_ps(all(-86.0f), _mm512_sub_ps(_mm512_maskz_loadu_ps(there, x + at), all(highest)));
        exponentials(1, &power);
        power = _mm512_maskz_mov_ps(words, power);
        sum += _mm512_reduce_add_ps(power);
        _mm512_mask_storeu_ps(x + at, there, power);
    }
    for (int64_t at = 0; at < size; at++) x[at] /= sum;
}

INLINE void look(const int half, int64_t sentences, int64_t each, int64_t values, int64_t size, const float *queries,
                 const void *keys, const uint8_t *mask, float *weights, int64_t width, const void *memory, float *context) {
    for (int64_t first = 0; first < sentences * values; first += values, mask += values) {
        for (int64_t value = 0; value < values; value++) {
            fetch(half, keys, first + values + value, size);
            if (context && memory != keys) fetch(half, memory, first + value, width);
            for (int64_t row = 0; row < each; row++)
                weights[row * values + value] = dot(half, size, queries + row * size, keys, (first + value) * size);
        }
        for (int64_t row = 0; row < each; row++) softmax(values, weights + row * values, mask);
        for (int64_t row = 0; context && row < each; row++, context += width)
            for (int64_t at = 0; at < width; at += 64) {
                floats sums[4], some[4];
                EACH(4) sums[k] = _mm512_setzero_ps();
                for (int64_t value = 0; value < values; value++) {
                    load_either(half, some, memory, (first + value) * width + at, width - at);
                    EACH(4) sums[k] = _mm512_fmadd_ps(all(weights[row * values + value]), some[k], sums[k]);
                }
                store(context + at, sums, width - at);
            }
        queries += each * size, weights += each * values;
    }
}

/* How much K queries (B, K, H) look at each of S keys (B, S, H): softmax of their products where the mask (B, S) is 1;
   and, where it is asked for, the mean of S values (B, S, C) so weighed, (B, K, C). Keys and values may be in fp16. */
void attend(int half, int64_t sentences, int64_t each, int64_t values, int64_t size, const float *queries, const void *keys,
            const uint8_t *mask, float *weights, int64_t width, const void *memory, float *context) {
    if (half)
        look(1, sentences, each, values, size, queries, keys, mask, weights, width, memory, context);
    else
        look(0, sentences, each, values, size, queries, keys, mask, weights, width, memory, context);
}
