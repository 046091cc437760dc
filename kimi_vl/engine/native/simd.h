// Vectors as wide as the processor's own: 16 floats with AVX-512, 8 with AVX2, else 4.
//
// The same files are compiled once for each kind of processor. What differs in more than width is behind KIMI_AVX512
// (VNNI and BF16) and KIMI_AVX2; everything else is plain C on these vectors.

#ifndef KIMI_SIMD_H
#define KIMI_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512VNNI__) && defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define KIMI_AVX512 1
#define LANES 16
#include <immintrin.h>
#elif defined(__AVX2__) && defined(__FMA__)
#define KIMI_AVX2 1
#define LANES 8
#include <immintrin.h>
#else
#define LANES 4
#endif

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef int8_t bytes __attribute__((vector_size(LANES)));

// Keeps sums in their registers: the compiler would add in another order and run out of them.
#define KEEP(x) __asm__("" : "+x"(x))

#define INLINE static inline __attribute__((always_inline))

INLINE floats load(const float *from) {
    floats x;
    memcpy(&x, from, sizeof x);
    return x;
}

INLINE void store(float *to, floats x) { memcpy(to, &x, sizeof x); }

INLINE floats splat(float x) { return x - (floats){0}; }

INLINE floats blend(ints where, floats yes, floats no) {
    ints bits = ((ints)yes & where) | ((ints)no & ~where);
    return (floats)bits;
}

INLINE floats larger(floats a, floats b) {
#if KIMI_AVX512
    return (floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif KIMI_AVX2
    return (floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return blend(a > b, a, b);
#endif
}

INLINE floats smaller(floats a, floats b) { return -larger(-a, -b); }

INLINE float sum_of(floats x) {
    float sum = 0;
    for (int l = 0; l < LANES; l++) sum += x[l];
    return sum;
}

INLINE float largest_of(floats x) {
    float most = x[0];
    for (int l = 1; l < LANES; l++) most = x[l] > most ? x[l] : most;
    return most;
}

// bfloat16 is the upper half of a float32.
INLINE floats from_bf16(const uint16_t *from) {
    halves half;
    memcpy(&half, from, sizeof half);
    words bits = __builtin_convertvector(half, words) << 16;
    return (floats)bits;
}

INLINE float float_of_bf16(uint16_t from) {
    uint32_t bits = (uint32_t)from << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE void floats_from_bf16(float *to, const uint16_t *from, int count) {
    int d = 0;
    for (; d + LANES <= count; d += LANES) store(to + d, from_bf16(from + d));
    for (; d < count; d++) to[d] = float_of_bf16(from[d]);
}

// The 16 bits of each, rounded to nearest, ties to even. No NaN comes here.
INLINE words bf16_bits(floats x) {
    words bits = (words)x;
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

INLINE void to_bf16(uint16_t *to, floats x) {
    halves half = __builtin_convertvector(bf16_bits(x), halves);
    memcpy(to, &half, sizeof half);
}

// Weights as torch multiplies them fastest: bfloat16 where the processor does that.
#if KIMI_AVX512
typedef uint16_t number;
#else
typedef float number;
#endif

INLINE number one_number(float x) {
#if KIMI_AVX512
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (number)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
#else
    return x;
#endif
}

// Rounds to nearest, ties to even, for |x| < 2^22.
INLINE floats rounded(floats x) {
    const float magic = 12582912.0f;
    return (x + magic) - magic;
}

// e^x to about 2e-7 relative. Below -87 the result is 0, above 88 that of 88.
INLINE floats exponential(floats x) {
    const floats lowest = splat(-87.0f);
    ints tiny = x < lowest;
    x = smaller(larger(x, lowest), splat(88.0f));
    floats n = rounded(x * 1.44269504f);
    floats r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ints power = (__builtin_convertvector(n, ints) + 127) << 23;
    return blend(tiny, (floats){0}, p * (floats)power);
}

// e^x for x of at most 0, to about 3e-6 relative, in half the steps. Below -87 the result is that of -87, next to 0.
INLINE floats decay(floats x) {
    const floats magic = splat(12582912.0f); // 1.5 · 2^23: the sum's lowest bits are a whole number
    floats shifted = larger(x, splat(-87.0f)) * 1.44269504f + magic;
    floats n = shifted - magic;
    floats r = larger(x, splat(-87.0f)) - n * 0.69314718f;
    floats p = r * 8.3334519073e-3f + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return (floats)((ints)p + ((ints)shifted << 23));
}

INLINE floats silu(floats x) { return x / (1.0f + exponential(-x)); }

#endif
