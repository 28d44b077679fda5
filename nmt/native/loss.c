/* Cross-entropy of logits in float32 or bf16, and its gradient, a row at a time while it is in the cache. */
#include <math.h>
#include <stdlib.h>

#include "vectors.h"

enum { LARGE = 1 << 14 }; /* logits from which on threads pay */

/* Of a row of logits (V): -sum_v q(v) log p(v), where q gives `smoothing` to all words in equal parts and the rest to one
   word; and p - q, if that is asked for. `room` is for V floats. */
INLINE float of_row(const int narrow, int64_t size, const void *logits, int64_t word, float smoothing, void *gradient,
                    float *room) {
    const float share = smoothing / size;
    const int64_t full = size / 64 * 64;
    floats x[4], most[4], sums[4], totals[4];
    EACH(4) most[k] = all(-INFINITY);
    EACH(4) sums[k] = totals[k] = _mm512_setzero_ps();
    for (int64_t at = 0; at < size; at += 64) {
        EACH(4) x[k] = get16(narrow, logits, at + 16 * k, first_of(size - at - 16 * k));
        EACH(4) totals[k] = _mm512_add_ps(totals[k], x[k]);
        if (at == full) EACH(4) x[k] = _mm512_mask_mov_ps(all(-INFINITY), first_of(size - at - 16 * k), x[k]);
        EACH(4) _mm512_mask_storeu_ps(room + at + 16 * k, first_of(size - at - 16 * k), x[k]);
        EACH(4) most[k] = _mm512_max_ps(most[k], x[k]);
    }
    const floats highest = all(_mm512_reduce_max_ps(largest_of_four(most)));
    const float said = room[word];
    for (int64_t at = 0; at < size; at += 64) {
        load(x, room + at, size - at, -INFINITY);
        EACH(4) x[k] = _mm512_max_ps(all(-86.0f), _mm512_sub_ps(x[k], highest));
        exponentials(4, x);
        if (at == full) EACH(4) x[k] = _mm512_maskz_mov_ps(first_of(size - at - 16 * k), x[k]);
        store(room + at, x, size - at);
        EACH(4) sums[k] = _mm512_add_ps(sums[k], x[k]);
    }
    const float sum = sum_of_four(sums);
    if (gradient) {
        const floats times = all(1 / sum), less = all(share);
        for (int64_t at = 0; at < size; at += 64) {
            load(x, room + at, size - at, 0);
            EACH(4) put16(narrow, gradient, at + 16 * k, first_of(size - at - 16 * k), _mm512_fmsub_ps(x[k], times, less));
        }
        put16(narrow, gradient, word, 1, all(room[word] / sum - share - (1 - smoothing)));
    }
    const float most_said = _mm512_cvtss_f32(highest), mean = smoothing ? most_said - sum_of_four(totals) / size : 0;
    return logf(sum) + (1 - smoothing) * (most_said - said) + smoothing * mean;
}

/* Of logits (n, V) and words (n): the losses (n) and, but for NULL, the gradient (n, V) of their sum, of the logits' type.
   Returns 0; or, having done nothing, the number, from 1 on, of the first word that is none. */
int64_t cross_entropy(int narrow, int64_t n, int64_t size, const void *logits, const int64_t *words, float smoothing,
                      float *losses, void *gradient) {
    for (int64_t row = 0; row < n; row++)
        if (words[row] < 0 || words[row] >= size) return row + 1;
#pragma omp parallel if (n * size > LARGE)
    {
        float *room = malloc(size * sizeof(float));
        if (!room) abort();
        const int64_t bytes = size * (narrow ? 2 : 4);
#pragma omp for
        for (int64_t row = 0; row < n; row++) {
            const char *some = (const char *)logits + row * bytes;
            char *to = gradient ? (char *)gradient + row * bytes : NULL;
            losses[row] = narrow ? of_row(1, size, some, words[row], smoothing, to, room)
                                 : of_row(0, size, some, words[row], smoothing, to, room);
        }
        free(room);
    }
    return 0;
}
