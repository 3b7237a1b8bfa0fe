// What the passes of the selective scan share: one direction's chunk of steps for one vector of channels.
#pragma once

#include "powers.h"

namespace {

using framecast::Scan;

constexpr int64_t STEPS = framecast::SCAN_STEPS;  // of a chunk
#if defined(__AVX512F__)
constexpr int GROUP = 4;  // states that share the registers
#else
constexpr int GROUP = 2;
#endif

alignas(64) constexpr float ZEROS[LANES] = {};

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

// 2^(t a) of S states, two at a time.
template <bool WILD, int S>
FRAMECAST_INLINE void decays(Vector time, const Vector (&a)[S], Vector (&decay)[S]) {
#pragma GCC unroll 2
  for (int i = 0; i + 1 < S; i += 2) {
    const Pair pair = power<WILD>(Pair{apart(time * a[i]), apart(time * a[i + 1])});
    decay[i] = pair.a, decay[i + 1] = pair.b;
  }
  if (S == 1) decay[0] = power<WILD>(apart(time * a[0]));
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

// Where one vector of channels of one direction lies in the tensors. Steps are counted as they are walked:
// from the end, if the direction does so.
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
    for (int64_t n = 0; n < states; ++n) steepest = larger(size(load(A + n * LANES)), steepest);
    return steepest;
  }
  // (states, LANES) -> (channels, states), the other way of by_lane.
  void by_channel(const float* from, float* to) const {
    for (int64_t n = 0; n < scan->states; ++n)
      for (int64_t c = 0; c < count; ++c) to[c * scan->states + n] = from[n * LANES + c];
  }
};

}  // namespace
