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
#if defined(__AVX512F__)
FRAMECAST_INLINE Vector at_least(Vector x, float least) { return _mm512_max_ps(all(least), x); }
FRAMECAST_INLINE Vector at_most(Vector x, float most) { return _mm512_min_ps(all(most), x); }
#else
FRAMECAST_INLINE Vector at_least(Vector x, float least) { return x < least ? all(least) : x; }
FRAMECAST_INLINE Vector at_most(Vector x, float most) { return x > most ? all(most) : x; }
#endif
FRAMECAST_INLINE Pair at_least(Pair x, float least) { return {at_least(x.a, least), at_least(x.b, least)}; }
FRAMECAST_INLINE Pair at_most(Pair x, float most) { return {at_most(x.a, most), at_most(x.b, most)}; }

FRAMECAST_INLINE Vector where_positive(Vector x, Vector yes, Vector no) { return x > 0.0f ? yes : no; }
FRAMECAST_INLINE Pair where_positive(Pair x, Pair yes, Pair no) {
  return {where_positive(x.a, yes.a, no.a), where_positive(x.b, yes.b, no.b)};
}

// 2^x = 2^k 2^f with k = x rounded: to 32nds with AVX-512, to eighths with AVX2, as many as their tables of
// roots have entries, else to whole numbers. Of the polynomials, 2^f - 1 is exact to 1e-7 also where it is
// small: an error there would add up over the life of a slowly fading state.
#if defined(__AVX512F__)
constexpr float ROUNDER = 393216.0f;  // 1.5 * 2^18: adding it rounds to 32nds
alignas(64) constexpr int32_t ROOTS[32] = {
    // 2^(j / 32)
    0x3f800000, 0x3f82cd87, 0x3f85aac3, 0x3f88980f, 0x3f8b95c2, 0x3f8ea43a, 0x3f91c3d3, 0x3f94f4f0,
    0x3f9837f0, 0x3f9b8d3a, 0x3f9ef532, 0x3fa27043, 0x3fa5fed7, 0x3fa9a15b, 0x3fad583f, 0x3fb123f6,
    0x3fb504f3, 0x3fb8fbaf, 0x3fbd08a4, 0x3fc12c4d, 0x3fc5672a, 0x3fc9b9be, 0x3fce248c, 0x3fd2a81e,
    0x3fd744fd, 0x3fdbfbb8, 0x3fe0ccdf, 0x3fe5b907, 0x3feac0c7, 0x3fefe4ba, 0x3ff5257d, 0x3ffa83b3};

// 2^(k mod 1)
FRAMECAST_INLINE Vector root(Vector shifted) {
  const __m512i low = _mm512_load_si512(ROOTS), high = _mm512_load_si512(ROOTS + 16);
  return _mm512_castsi512_ps(_mm512_permutex2var_epi32(low, _mm512_castps_si512(shifted), high));
}
FRAMECAST_INLINE Pair root(Pair x) { return {root(x.a), root(x.b)}; }

// x 2^floor(k)
FRAMECAST_INLINE Vector scaled(Vector x, Vector k) { return _mm512_scalef_ps(x, k); }
FRAMECAST_INLINE Pair scaled(Pair x, Pair k) { return {scaled(x.a, k.a), scaled(x.b, k.b)}; }

// (2^f - 1) / f
template <class V>
FRAMECAST_INLINE V slope(V f) {
  const V p = f * 5.55041122e-2f + 2.40228276e-1f;
  return p * f + 6.93147181e-1f;
}

// 2^k 2^f from k + ROUNDER and f.
template <class V>
FRAMECAST_INLINE V raise(V shifted, V f) {
  const V r = root(shifted);
  return scaled(r * f * slope(f) + r, shifted - ROUNDER);
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

// 2^(j / 8) less j where the exponent stands: with the bits of k in eighths added, 2^k.
alignas(32) constexpr int32_t ROOTS[8] = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                                          0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};

// 2^k
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
FRAMECAST_INLINE Pair whole_power(Pair x) { return {whole_power(x.a), whole_power(x.b)}; }

template <class V>
FRAMECAST_INLINE V raise(V shifted, V f) {
  const V whole = whole_power(shifted);
  return whole * f * slope(f) + whole;
}

FRAMECAST_INLINE Vector apart(Vector x) { return x; }
FRAMECAST_INLINE Vector reciprocal(Vector x) { return 1.0f / x; }
FRAMECAST_INLINE Pair reciprocal(Pair x) { return {1.0f / x.a, 1.0f / x.b}; }
#endif

// 2^x for x in [-126, 126], or with WILD for any x, clamped to that.
template <bool WILD, class V>
FRAMECAST_INLINE V power(V x) {
  if (WILD) x = at_most(at_least(x, -126.0f), 126.0f);
  const V shifted = x + ROUNDER;
  return raise(shifted, x - (shifted - ROUNDER));
}

// 1 / (1 + e^-x), absolute error below 1e-7, and what it lacks to 1, not by subtraction.
template <class V>
FRAMECAST_INLINE V sigmoid(V x, V* rest = nullptr) {
  x = at_most(at_least(x, -87.0f), 87.0f);
  const V shifted = ROUNDER - x * LOG2_E, k = shifted - ROUNDER;
  const V e = raise(shifted, -x * LOG2_E - k), s = reciprocal(1.0f + e);
  if (rest) *rest = e * s;
  return s;
}

// log(1 + e^x) = max(x, 0) + log(1 + w), w = e^-|x|; relative error below 2e-7. For w to be that exact where
// it is small, log2(e) comes in two parts. The slope is 1 / (1 + e^-x).
template <class V>
FRAMECAST_INLINE V softplus(V x, V* slope = nullptr) {
  const V down = at_least(-size(x), -87.0f);
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
