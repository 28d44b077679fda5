/* 16 floats at a time: exponentials and what is made of them, to a unit or two in the last place. */
#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

typedef __m512 floats;

/* The elements that there are, of 16, `left` being to do. */
INLINE __mmask16 first_of(int64_t left) { return left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0; }

INLINE floats all(float value) { return _mm512_set1_ps(value); }

/* Operands of max and min stand so that NaN stays NaN. */
INLINE floats between(float low, float high, floats x) { return _mm512_min_ps(all(high), _mm512_max_ps(all(low), x)); }

#define EACH(count) _Pragma("GCC unroll 8") for (int k = 0; k < (count); k++)

/* 64 numbers from x on, if `left` are as many; else `rest` in place of what there is not. */
INLINE void load(floats *found, const float *x, int64_t left, float rest) {
    if (left >= 64)
        EACH(4) found[k] = _mm512_loadu_ps(x + 16 * k);
    else
        EACH(4) found[k] = _mm512_mask_loadu_ps(all(rest), first_of(left - 16 * k), x + 16 * k);
}

INLINE void store(float *to, const floats *x, int64_t left) {
    if (left >= 64)
        EACH(4) _mm512_storeu_ps(to + 16 * k, x[k]);
    else
        EACH(4) _mm512_mask_storeu_ps(to + 16 * k, first_of(left - 16 * k), x[k]);
}

/* 64 numbers of 16 bits. */
INLINE void load_halves(floats *found, const uint16_t *x) {
    EACH(4) found[k] = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(x + 16 * k)));
}

INLINE void store_halves(uint16_t *to, const floats *x) {
    EACH(4) _mm256_storeu_si256((void *)(to + 16 * k), _mm512_cvtps_ph(x[k], _MM_FROUND_TO_NEAREST_INT));
}

/* 16 numbers in float32 or, if `narrow`, in bf16, which has the upper halves of floats. */
INLINE floats get16(const int narrow, const void *x, int64_t at, __mmask16 there) {
    if (!narrow) return _mm512_maskz_loadu_ps(there, (const float *)x + at);
    const __m256i halves = _mm256_maskz_loadu_epi16(there, (const uint16_t *)x + at);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

/* To bf16 they are rounded, ties to even; NaN stays NaN. */
INLINE void put16(const int narrow, void *x, int64_t at, __mmask16 there, floats value) {
    if (!narrow) {
        _mm512_mask_storeu_ps((float *)x + at, there, value);
        return;
    }
    const __m512i bits = _mm512_castps_si512(value), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    const __m512i halves = _mm512_mask_mov_epi32(_mm512_srli_epi32(up, 16), nan, _mm512_set1_epi32(0x7fc0));
    _mm256_mask_storeu_epi16((uint16_t *)x + at, there, _mm512_cvtepi32_epi16(halves));
}

INLINE floats largest_of_four(const floats *x) {
    return _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
}

INLINE float sum_of_four(const floats *x) {
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3])));
}

/* e^x = 2^n e^r with n whole and |r| <= ln 2 / 2: 2^n, and e^r - 1 by its Taylor series in place of x. |x| < 87.
   Of `count` vectors: step by step together, for each step waits for the one before. */
INLINE void powers(const int count, floats *x, floats *power) {
    const floats whole = all(12582912.0f); /* 1.5 * 2^23: what is added to it becomes whole */
    floats series[8];
    EACH(count) power[k] = _mm512_fmadd_ps(x[k], all(1.44269504f), whole);
    EACH(count) x[k] = _mm512_fnmadd_ps(_mm512_sub_ps(power[k], whole), all(0.693145752f), x[k]); /* ln 2, in two parts */
    EACH(count) x[k] = _mm512_fnmadd_ps(_mm512_sub_ps(power[k], whole), all(1.42860677e-6f), x[k]);
    EACH(count) series[k] = _mm512_fmadd_ps(all(1.0f / 5040), x[k], all(1.0f / 720));
    EACH(count) series[k] = _mm512_fmadd_ps(series[k], x[k], all(1.0f / 120));
    EACH(count) series[k] = _mm512_fmadd_ps(series[k], x[k], all(1.0f / 24));
    EACH(count) series[k] = _mm512_fmadd_ps(series[k], x[k], all(1.0f / 6));
    EACH(count) series[k] = _mm512_fmadd_ps(series[k], x[k], all(0.5f));
    EACH(count) x[k] = _mm512_fmadd_ps(series[k], _mm512_mul_ps(x[k], x[k]), x[k]);
    EACH(count) power[k] = _mm512_castsi512_ps(_mm512_add_epi32(
        _mm512_slli_epi32(_mm512_castps_si512(power[k]), 23), _mm512_castps_si512(all(1.0f))));
}

INLINE void exponentials(const int count, floats *x) {
    floats power[8];
    powers(count, x, power);
    EACH(count) x[k] = _mm512_fmadd_ps(power[k], x[k], power[k]);
}

INLINE void exponentials_less_one(const int count, floats *x) {
    floats power[8];
    powers(count, x, power);
    EACH(count) x[k] = _mm512_fmadd_ps(power[k], x[k], _mm512_sub_ps(power[k], all(1.0f)));
}

/* 1 / x of finite x, by a step of Newton's from 14 bits. */
INLINE void reciprocals(const int count, floats *x) {
    floats close[8];
    EACH(count) close[k] = _mm512_rcp14_ps(x[k]);
    EACH(count) x[k] = _mm512_fmadd_ps(close[k], _mm512_fnmadd_ps(x[k], close[k], all(1.0f)), close[k]);
}

/* tanh x = (e^2x - 1) / (e^2x + 1). */
INLINE void tanhs(const int count, floats *x) {
    floats divisor[8];
    EACH(count) x[k] = between(-20.0f, 20.0f, _mm512_add_ps(x[k], x[k]));
    exponentials_less_one(count, x);
    EACH(count) divisor[k] = _mm512_add_ps(x[k], all(2.0f));
    reciprocals(count, divisor);
    EACH(count) x[k] = _mm512_mul_ps(x[k], divisor[k]);
}

/* Sigmoids of the first three of four, 1 / (1 + e^-x), and tanh of the last, (1 - e^-2x) / (1 + e^-2x). */
INLINE void gates(floats *x) {
    floats divisor[4];
    EACH(4) x[k] = between(-40.0f, 40.0f, _mm512_mul_ps(x[k], all(k == 3 ? -2.0f : -1.0f)));
    exponentials_less_one(4, x);
    EACH(4) divisor[k] = _mm512_add_ps(x[k], all(2.0f));
    reciprocals(4, divisor);
    EACH(4) x[k] = k == 3 ? _mm512_mul_ps(_mm512_sub_ps(_mm512_setzero_ps(), x[k]), divisor[k]) : divisor[k];
}
