// What the passes of the selective scan share: one direction's chunk of steps for one vector of channels.
#pragma once

#if defined(__SSE__)
#include <immintrin.h>
#endif

#include "vectors.h"

namespace {

using framecast::Scan;

constexpr int64_t STEPS = framecast::SCAN_STEPS;  // of a chunk
#if defined(__AVX512F__)
constexpr int GROUP = 4;  // states that share the registers
#else
constexpr int GROUP = 2;
#endif
constexpr float LOG2_E = 1.44269502f, LOG2_E_REST = 1.92596299e-8f, LN_2 = 0.693147181f;

// While it lives, numbers too small for the normal format become zero: states that fade away would otherwise
// cost a hundred cycles each on some processors.
class NoDenormals {
#if defined(__SSE__)
  const unsigned before = _mm_getcsr();

 public:
  NoDenormals() { _mm_setcsr(before | 0x8040); }
  ~NoDenormals() { _mm_setcsr(before); }
#endif
};

// The first `count` numbers of a vector, the channels of a group need not be whole vectors.
inline Vector load_first(const float* from, int64_t count) {
  if (count >= LANES) return load(from);
  Vector x{};
  for (int64_t c = 0; c < count; ++c) x[c] = from[c];
  return x;
}

inline void store_first(float* to, Vector x, int64_t count) {
  if (count >= LANES) return store(to, x);
  for (int64_t c = 0; c < count; ++c) to[c] = x[c];
}

// 2^x = 2^k 2^f, k whole (in 32nds with AVX-512) and f the small rest. Of the polynomials, 2^f - 1 is exact to
// 1e-7 also where it is small: an error there would add up over the many steps that a slowly fading state lives.
#if defined(__AVX512F__)
constexpr float ROUNDER = 393216.0f;  // 1.5 * 2^18: adding it rounds to 32nds

// 2^(j / 32) less j in the exponent's place: adding the bits of 32 k to entry 32 k mod 32 gives 2^k.
alignas(64) constexpr int32_t ROOTS[32] = {
    0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a, 0x3f79c3d3, 0x3f78f4f0,
    0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043, 0x3f75fed7, 0x3f75a15b, 0x3f75583f, 0x3f7523f6,
    0x3f7504f3, 0x3f74fbaf, 0x3f7508a4, 0x3f752c4d, 0x3f75672a, 0x3f75b9be, 0x3f76248c, 0x3f76a81e,
    0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907, 0x3f7ac0c7, 0x3f7be4ba, 0x3f7d257d, 0x3f7e83b3};

// 2^k 2^f from k + ROUNDER and f.
inline Vector raise(Vector shifted, Vector f) {
  const __m512i bits = _mm512_castps_si512(shifted), low = _mm512_load_si512(ROOTS);
  const __m512i root = _mm512_permutex2var_epi32(low, bits, _mm512_load_si512(ROOTS + 16));
  const Vector whole = _mm512_castsi512_ps(_mm512_add_epi32(root, _mm512_slli_epi32(bits, 18)));
  Vector p = all(5.55041122e-2f);
  p = p * f + 2.40228276e-1f;
  p = p * f + 6.93147181e-1f;
  return whole * f * p + whole;
}

inline Vector reciprocal(Vector x) {
  const Vector about = _mm512_rcp14_ps(x);
  return about + about * (1.0f - x * about);
}

// A product as a number of its own. Contracted with the sums that follow it, it would cost a second operation on
// the units that multiply, which are the bottleneck, to save one on those that only add.
inline Vector apart(Vector x) {
  asm("" : "+v"(x));
  return x;
}
#else
constexpr float ROUNDER = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers

inline Vector raise(Vector shifted, Vector f) {
  Vector p = all(1.54035127e-4f);
  p = p * f + 1.33907355e-3f;
  p = p * f + 9.61823753e-3f;
  p = p * f + 5.55035745e-2f;
  p = p * f + 2.40226498e-1f;
  p = p * f + 6.93147188e-1f;
  p = p * f + 1.0f;
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(p) +
                                  (reinterpret_cast<Integers>(shifted) << 23));
}

inline Vector reciprocal(Vector x) { return 1.0f / x; }

inline Vector apart(Vector x) { return x; }
#endif

// NaN stays NaN.
inline Vector clamped(Vector x, float least, float most) {
#if defined(__AVX512F__)
  return _mm512_min_ps(all(most), _mm512_max_ps(all(least), x));
#else
  x = x < least ? all(least) : x;
  return x > most ? all(most) : x;
#endif
}

// 2^x for x in [-126, 126], or with WILD for any x, clamped to that.
template <bool WILD>
inline Vector power(Vector x) {
  if (WILD) x = clamped(x, -126.0f, 126.0f);
  const Vector shifted = x + ROUNDER;
  return raise(shifted, x - (shifted - ROUNDER));
}

// 1 / (1 + e^-x), absolute error below 1e-7, and what it lacks to 1, not by subtraction.
inline Vector sigmoid(Vector x, Vector* rest = nullptr) {
  x = clamped(x, -87.0f, 87.0f);
  const Vector shifted = ROUNDER - x * LOG2_E, k = shifted - ROUNDER;
  const Vector e = raise(shifted, -x * LOG2_E - k), s = reciprocal(1.0f + e);
  if (rest) *rest = e * s;
  return s;
}

// log(1 + e^x) = max(x, 0) + log(1 + w), w = e^-|x|; relative error below 2e-7. For w to be that exact where it
// is small, log2(e) comes in two parts.
inline Vector softplus(Vector x) {
  const Vector size = larger(x < 0.0f ? x : -x, all(-87.0f));
  const Vector shifted = size * LOG2_E + ROUNDER, k = shifted - ROUNDER;
  const Vector w = raise(shifted, size * LOG2_E_REST + (size * LOG2_E - k));
  Vector p = all(-3.31847403e-3f);
  p = p * w + 2.02045917e-2f;
  p = p * w - 5.7664457e-2f;
  p = p * w + 1.06805568e-1f;
  p = p * w - 1.53553971e-1f;
  p = p * w + 1.96954008e-1f;
  p = p * w - 2.49585875e-1f;
  p = p * w + 3.33305113e-1f;
  p = p * w - 4.99999328e-1f;
  return p * w * w + w + (x > 0.0f ? x : Vector{});
}

// B or C of one step and state: a number that all channels of the group share, or fixed ones by channel.
template <bool FIXED>
inline Vector weight(const float* at, int64_t state) {
  return FIXED ? load(at + state * LANES) : all(at[state]);
}

// Rows that come next, to be fetched into cache on the way.
struct Ahead {
  const float* at;
  int64_t row;
};

template <int N>
struct Constant {
  static constexpr int value = N;
};

inline bool any_beyond(Vector x, float most) {
  bool found = false;
  for (int i = 0; i < LANES; ++i) found |= !(x[i] < most);  // NaN is beyond
  return found;
}

// (channels, states) -> (states, LANES), times `scale`; zeros where there is no channel.
inline void by_lane(const float* matrix, int64_t states, int64_t count, float scale, float* to) {
  for (int64_t n = 0; n < states; ++n)
    for (int64_t c = 0; c < LANES; ++c) to[n * LANES + c] = c < count ? scale * matrix[c * states + n] : 0.0f;
}

// Where one vector of channels of one direction lies in the tensors. Steps are counted as they are walked: from the
// end, if the direction does so.
struct Lane {
  const Scan* scan;
  int64_t direction, video, channel, count;  // first channel, number of channels

  bool backwards() const { return direction || scan->reverse; }
  int64_t sign() const { return backwards() ? -1 : 1; }
  int64_t row(int64_t step) const { return backwards() ? scan->steps - 1 - step : step; }

  const float* at(const framecast::Rows& x, int64_t step) const {
    return x.at + direction * x.direction + video * x.video + row(step) * x.row + channel;
  }
  const float* at_shared(const framecast::Rows& x, int64_t step) const {  // of both directions
    return x.at + video * x.video + row(step) * x.row + channel;
  }
  float* out(float* x, int64_t step) const {
    return x + ((direction * scan->videos + video) * scan->steps + row(step)) * scan->channels + channel;
  }
  float* out_shared(float* x, int64_t step) const {
    return x + (video * scan->steps + row(step)) * scan->channels + channel;
  }
  const float* weights(const framecast::Rows& x, int64_t group_row, int64_t step) const {
    const int64_t group = channel / (scan->channels / scan->groups);
    return x.at + direction * x.direction + video * x.video + row(step) * x.row + group * group_row;
  }
  int64_t state() const {  // where this vector's begin in (directions, videos, channels, states)
    return ((direction * scan->videos + video) * scan->channels + channel) * scan->states;
  }
  float* kept(int64_t chunk) const {
    const int64_t chunks = (scan->steps + STEPS - 1) / STEPS;
    const int64_t before = (direction * scan->videos + video) * chunks + chunk;
    return scan->kept + before * scan->states * scan->channels + channel;
  }
  Vector parameter(const float* x) const {  // of (directions, channels), zeros without
    return x ? load_first(x + direction * scan->channels + channel, count) : Vector{};
  }
  // A log2(e) and fixed B and C by lane; gives the largest |A| log2(e) of each lane.
  Vector load_weights(float* A, float* B, float* C) const {
    const int64_t states = scan->states, first = (direction * scan->channels + channel) * states;
    by_lane(scan->A + first, states, count, LOG2_E, A);
    if (scan->fixed_B) by_lane(scan->B.at + first, states, count, 1.0f, B);
    if (scan->fixed_C) by_lane(scan->C.at + first, states, count, 1.0f, C);
    Vector steepest{};
    for (int64_t n = 0; n < states; ++n) {
      const Vector a = load(A + n * LANES);
      steepest = larger(larger(a, -a), steepest);
    }
    return steepest;
  }
  // (states, LANES) -> (channels, states), the other way of by_lane.
  void by_channel(const float* from, float scale, float* to) const {
    for (int64_t n = 0; n < scan->states; ++n)
      for (int64_t c = 0; c < count; ++c) to[c * scan->states + n] = scale * from[n * LANES + c];
  }
};

}  // namespace
