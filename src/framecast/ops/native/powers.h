// Powers, sigmoid and softplus, on one vector or on two at once; exact enough for what adds up over many
// steps.
#pragma once

#if defined(__SSE__)
#include <immintrin.h>
#endif

#include "vectors.h"

namespace {

#define FRAMECAST_INLINE inline __attribute__((always_inline))

constexpr float LOG2_E = 1.44269502f, LOG2_E_REST = 1.92596299e-8f, LN_2 = 0.693147181f;

// Two vectors that take every step of a computation together. A processor looks only so many operations
// ahead; of two computations side by side it finds twice as many that need not wait for one another.
struct Pair {
  Vector a, b;
};

FRAMECAST_INLINE Pair operator+(Pair x, Pair y) { return {x.a + y.a, x.b + y.b}; }
FRAMECAST_INLINE Pair operator-(Pair x, Pair y) { return {x.a - y.a, x.b - y.b}; }
FRAMECAST_INLINE Pair operator*(Pair x, Pair y) { return {x.a * y.a, x.b * y.b}; }
FRAMECAST_INLINE Pair operator+(Pair x, float y) { return {x.a + y, x.b + y}; }
FRAMECAST_INLINE Pair operator-(Pair x, float y) { return {x.a - y, x.b - y}; }
FRAMECAST_INLINE Pair operator*(Pair x, float y) { return {x.a * y, x.b * y}; }
FRAMECAST_INLINE Pair operator+(float x, Pair y) { return {x + y.a, x + y.b}; }
FRAMECAST_INLINE Pair operator-(float x, Pair y) { return {x - y.a, x - y.b}; }
FRAMECAST_INLINE Pair operator-(Pair x) { return {-x.a, -x.b}; }

FRAMECAST_INLINE Vector size(Vector x) {
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(x) & 0x7fffffff);
}
FRAMECAST_INLINE Pair size(Pair x) { return {size(x.a), size(x.b)}; }

// NaN stays NaN.
FRAMECAST_INLINE Vector clamped(Vector x, float least, float most) {
#if defined(__AVX512F__)
  return _mm512_min_ps(all(most), _mm512_max_ps(all(least), x));
#else
  x = x < least ? all(least) : x;
  return x > most ? all(most) : x;
#endif
}
FRAMECAST_INLINE Pair clamped(Pair x, float least, float most) {
  return {clamped(x.a, least, most), clamped(x.b, least, most)};
}

FRAMECAST_INLINE Vector where_positive(Vector x, Vector yes, Vector no) { return x > 0.0f ? yes : no; }
FRAMECAST_INLINE Pair where_positive(Pair x, Pair yes, Pair no) {
  return {where_positive(x.a, yes.a, no.a), where_positive(x.b, yes.b, no.b)};
}

// 2^x = 2^k 2^f with k = x rounded: to 32nds with AVX-512, to eighths with AVX2, as many as its tables have
// entries, else to whole numbers. Entry j of ROOTS is 2^(j / entries), less j where the exponent stands:
// adding the bits of k in units of 1 / entries to the entry that they name gives 2^k. Of the polynomials, 2^f
// - 1 is exact to 1e-7 also where it is small: an error there would add up over the life of a slowly fading
// state.
#if defined(__AVX512F__)
constexpr float ROUNDER = 393216.0f;  // 1.5 * 2^18: adding it rounds to 32nds
alignas(64) constexpr int32_t ROOTS[32] = {
    0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a, 0x3f79c3d3, 0x3f78f4f0,
    0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043, 0x3f75fed7, 0x3f75a15b, 0x3f75583f, 0x3f7523f6,
    0x3f7504f3, 0x3f74fbaf, 0x3f7508a4, 0x3f752c4d, 0x3f75672a, 0x3f75b9be, 0x3f76248c, 0x3f76a81e,
    0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907, 0x3f7ac0c7, 0x3f7be4ba, 0x3f7d257d, 0x3f7e83b3};

FRAMECAST_INLINE Vector whole_power(Vector shifted) {
  const __m512i bits = _mm512_castps_si512(shifted), low = _mm512_load_si512(ROOTS);
  const __m512i root = _mm512_permutex2var_epi32(low, bits, _mm512_load_si512(ROOTS + 16));
  return _mm512_castsi512_ps(_mm512_add_epi32(root, _mm512_slli_epi32(bits, 18)));
}

// (2^f - 1) / f
template <class V>
FRAMECAST_INLINE V slope(V f) {
  const V p = f * 5.55041122e-2f + 2.40228276e-1f;
  return p * f + 6.93147181e-1f;
}

// A product as a number of its own. Contracted with the sums that follow it, it would cost a second operation
// on the units that multiply, which are the bottleneck, to save one on those that only add. It pays with
// AVX-512 only.
FRAMECAST_INLINE Vector apart(Vector x) {
  asm("" : "+v"(x));
  return x;
}

FRAMECAST_INLINE Vector reciprocal_estimate(Vector x) { return _mm512_rcp14_ps(x); }
FRAMECAST_INLINE Pair reciprocal_estimate(Pair x) { return {_mm512_rcp14_ps(x.a), _mm512_rcp14_ps(x.b)}; }

template <class V>
FRAMECAST_INLINE V reciprocal(V x) {
  const V estimate = reciprocal_estimate(x);
  return estimate + estimate * (1.0f - x * estimate);
}
#elif defined(__AVX2__)
constexpr float ROUNDER = 1572864.0f;  // 1.5 * 2^20: adding it rounds to eighths
alignas(32) constexpr int32_t ROOTS[8] = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                                          0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};

FRAMECAST_INLINE Vector whole_power(Vector shifted) {
  const __m256i bits = _mm256_castps_si256(shifted);
  const __m256i roots = _mm256_load_si256(reinterpret_cast<const __m256i*>(ROOTS));
  const __m256i root = _mm256_permutevar8x32_epi32(roots, bits);
  return _mm256_castsi256_ps(_mm256_add_epi32(root, _mm256_slli_epi32(bits, 20)));
}

template <class V>
FRAMECAST_INLINE V slope(V f) {
  V p = f * 9.61812911e-3f + 5.5509317e-2f;
  p = p * f + 2.40226508e-1f;
  return p * f + 6.93147178e-1f;
}
#else
constexpr float ROUNDER = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers

FRAMECAST_INLINE Vector whole_power(Vector shifted) {
  return reinterpret_cast<Vector>((reinterpret_cast<Integers>(shifted) << 23) + 0x3f800000);
}

template <class V>
FRAMECAST_INLINE V slope(V f) {
  V p = f * 1.54035127e-4f + 1.33907355e-3f;
  p = p * f + 9.61823753e-3f;
  p = p * f + 5.55035745e-2f;
  p = p * f + 2.40226498e-1f;
  return p * f + 6.93147188e-1f;
}
#endif
#if !defined(__AVX512F__)
FRAMECAST_INLINE Vector apart(Vector x) { return x; }
FRAMECAST_INLINE Vector reciprocal(Vector x) { return 1.0f / x; }
FRAMECAST_INLINE Pair reciprocal(Pair x) { return {1.0f / x.a, 1.0f / x.b}; }
#endif

FRAMECAST_INLINE Pair whole_power(Pair x) { return {whole_power(x.a), whole_power(x.b)}; }

// 2^k 2^f from k + ROUNDER and f.
template <class V>
FRAMECAST_INLINE V raise(V shifted, V f) {
  const V whole = whole_power(shifted);
  return whole * f * slope(f) + whole;
}

// 2^x for x in [-126, 126], or with WILD for any x, clamped to that.
template <bool WILD, class V>
FRAMECAST_INLINE V power(V x) {
  if (WILD) x = clamped(x, -126.0f, 126.0f);
  const V shifted = x + ROUNDER;
  return raise(shifted, x - (shifted - ROUNDER));
}

// 1 / (1 + e^-x), absolute error below 1e-7, and what it lacks to 1, not by subtraction.
template <class V>
FRAMECAST_INLINE V sigmoid(V x, V* rest = nullptr) {
  x = clamped(x, -87.0f, 87.0f);
  const V shifted = ROUNDER - x * LOG2_E, k = shifted - ROUNDER;
  const V e = raise(shifted, -x * LOG2_E - k), s = reciprocal(1.0f + e);
  if (rest) *rest = e * s;
  return s;
}

// log(1 + e^x) = max(x, 0) + log(1 + w), w = e^-|x|; relative error below 2e-7. For w to be that exact where
// it is small, log2(e) comes in two parts. The slope is 1 / (1 + e^-x).
template <class V>
FRAMECAST_INLINE V softplus(V x, V* slope = nullptr) {
  const V down = clamped(-size(x), -87.0f, 0.0f);
  const V shifted = down * LOG2_E + ROUNDER, k = shifted - ROUNDER;
  const V w = raise(shifted, down * LOG2_E_REST + (down * LOG2_E - k));
  if (slope) *slope = where_positive(x, V{} + 1.0f, w) * reciprocal(1.0f + w);
  V p = w * -3.31847403e-3f + 2.02045917e-2f;
  p = p * w - 5.7664457e-2f;
  p = p * w + 1.06805568e-1f;
  p = p * w - 1.53553971e-1f;
  p = p * w + 1.96954008e-1f;
  p = p * w - 2.49585875e-1f;
  p = p * w + 3.33305113e-1f;
  p = p * w - 4.99999328e-1f;
  return p * w * w + w + where_positive(x, x, V{});
}

}  // namespace
