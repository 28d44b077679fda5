/* Steps of LSTMs in training, there and back, all that is not a product: in float32, or with sums, gates, outputs and
   errors in bf16 and memories in float32. Gates are i, f, g, o, and tanh of the memory.

   c = f c(t-1) + i g, h = o tanh c; with d_h and d_c given, d_c += d_h o (1 - tanh^2 c), and the errors of the sums are
   d_c g i (1 - i), d_c c(t-1) f (1 - f), d_c i (1 - g^2) and d_h tanh c o (1 - o); d_c(t-1) = d_c f. */
#include "vectors.h"

INLINE void forward(const int narrow, int64_t row, int64_t size, const void *sums, const float *before, void *kept,
                    float *memory, void *output) {
    for (int64_t at = 0; at < size; at += 16) {
        const __mmask16 there = first_of(size - at);
        const int64_t cell = row * size + at, gate = 5 * row * size + at, order[4] = {0, 1, 3, 2};
        floats x[4], after; /* i, f, o, g */
        EACH(4) x[k] = get16(narrow, sums, (4 * row + order[k]) * size + at, there);
        gates(x);
        after = _mm512_fmadd_ps(x[1], _mm512_maskz_loadu_ps(there, before + cell), _mm512_mul_ps(x[0], x[3]));
        _mm512_mask_storeu_ps(memory + cell, there, after);
        tanhs(1, &after);
        EACH(4) put16(narrow, kept, gate + order[k] * size, there, x[k]);
        put16(narrow, kept, gate + 4 * size, there, after);
        put16(narrow, output, cell, there, _mm512_mul_ps(x[2], after));
    }
}

INLINE void backward(const int narrow, int64_t row, int64_t size, const void *kept, const float *before,
                     const void *d_output, const void *d_hidden, float *d_memory, void *errors) {
    const floats one = all(1.0f);
    for (int64_t at = 0; at < size; at += 16) {
        const __mmask16 there = first_of(size - at);
        const int64_t cell = row * size + at, gate = 5 * row * size + at, error = 4 * row * size + at;
        floats x[5]; /* i, f, g, o, tanh c */
        EACH(5) x[k] = get16(narrow, kept, gate + k * size, there);
        const floats was = _mm512_maskz_loadu_ps(there, before + cell);
        floats d_h = get16(narrow, d_output, cell, there);
        if (d_hidden) d_h = _mm512_add_ps(d_h, get16(narrow, d_hidden, cell, there));
        const floats d_o = _mm512_mul_ps(d_h, x[4]), rest = _mm512_fnmadd_ps(x[4], x[4], one);
        const floats after = _mm512_maskz_loadu_ps(there, d_memory + cell);
        const floats d_c = _mm512_fmadd_ps(_mm512_mul_ps(d_h, x[3]), rest, after);
        const floats d_i = _mm512_mul_ps(_mm512_mul_ps(d_c, x[2]), x[0]);
        const floats d_f = _mm512_mul_ps(_mm512_mul_ps(d_c, was), x[1]);
        const floats d_g = _mm512_mul_ps(d_c, x[0]);
        put16(narrow, errors, error, there, _mm512_fnmadd_ps(d_i, x[0], d_i));
        put16(narrow, errors, error + size, there, _mm512_fnmadd_ps(d_f, x[1], d_f));
        put16(narrow, errors, error + 2 * size, there, _mm512_mul_ps(d_g, _mm512_fnmadd_ps(x[2], x[2], one)));
        put16(narrow, errors, error + 3 * size, there,
            _mm512_mul_ps(_mm512_mul_ps(d_o, x[3]), _mm512_sub_ps(one, x[3])));
        _mm512_mask_storeu_ps(d_memory + cell, there, _mm512_mul_ps(d_c, x[1]));
    }
}

enum { LARGE = 8192 }; /* cells from which on threads pay */

/* From sums (n, 4H) and the memory before (n, H): gates (n, 5H), memory and output after (n, H). */
void lstm_forward(int narrow, int64_t n, int64_t size, const void *sums, const float *before, void *kept, float *memory,
                  void *output) {
#pragma omp parallel for if (n * size > LARGE)
    for (int64_t row = 0; row < n; row++)
        if (narrow)
            forward(1, row, size, sums, before, kept, memory, output);
        else
            forward(0, row, size, sums, before, kept, memory, output);
}

/* From gates (n, 5H), the memory before (n, H) and the derivatives by the output (n, H), by way of the next steps of the first
   `running` rows too (running, H), and by the memory after (n, H): the errors of the sums (n, 4H) and, in the place of the last,
   the derivative by the memory before. */
void lstm_backward(int narrow, int64_t n, int64_t size, const void *kept, const float *before, const void *d_output,
                   int64_t running, const void *d_hidden, float *d_memory, void *errors) {
#pragma omp parallel for if (n * size > LARGE)
    for (int64_t row = 0; row < n; row++) {
        const void *more = row < running ? d_hidden : NULL;
        if (narrow)
            backward(1, row, size, kept, before, d_output, more, d_memory, errors);
        else
            backward(0, row, size, kept, before, d_output, more, d_memory, errors);
    }
}
