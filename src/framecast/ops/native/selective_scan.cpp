// The selective scan: states of one vector of channels in registers, chunks of steps in the first-level cache.
//
// Channels lie on lanes, so that neither the recurrence nor the sum over states ever crosses them. A chunk takes
// three passes: t = softplus(delta + bias) and t u; the recurrence, a few states at a time over all steps of the
// chunk; D and the gate. Each pass has few enough numbers for the registers. Both directions of a block of
// channels follow each other, so that the second finds the answer of the first in cache.

#include "scan.h"

namespace {

constexpr int WIDEST = 32;  // vectors of a block at most

// Rows that come next, to be fetched into cache on the way.
struct Ahead {
  const float* at;
  int64_t row;
};

// y += C h over the states n .. n + S - 1, with h = 2^(t A) h + (t u) B.
template <int S, bool FIXED_B, bool FIXED_C, bool WILD>
void recur(const float* t, const float* tu, float* y, int64_t steps, const float* A, float* state,
           const float* B, int64_t B_row, const float* C, int64_t C_row, Ahead ahead) {
  Vector a[S], h[S];
  for (int i = 0; i < S; ++i) a[i] = load(A + i * LANES), h[i] = load(state + i * LANES);
  for (int64_t l = 0; l < steps; ++l, B += B_row, C += C_row, ahead.at += ahead.row) {
    __builtin_prefetch(ahead.at);
    const Vector time = load(t + l * LANES), input = load(tu + l * LANES);
    Vector sums[2] = {};  // sums of few numbers before sums of many: less is rounded away
#pragma GCC unroll 4
    for (int i = 0; i < S; ++i) {
      h[i] = power<WILD>(apart(time * a[i])) * h[i] + input * weight<FIXED_B>(B, i);
      const Vector part = h[i] * weight<FIXED_C>(C, i);
      sums[i / 2] = i % 2 ? sums[i / 2] + part : part;
    }
    store(y + l * LANES, load(y + l * LANES) + (S > 2 ? sums[0] + sums[1] : sums[0]));
  }
  for (int i = 0; i < S; ++i) store(state + i * LANES, h[i]);
}

template <bool FIXED_B, bool FIXED_C, bool WILD>
void recur_all(const float* t, const float* tu, float* y, int64_t steps, const float* A, float* state,
               int64_t states, const float* B, int64_t B_row, const float* C, int64_t C_row, const Ahead* ahead) {
  constexpr int64_t b = FIXED_B ? LANES : 1, c = FIXED_C ? LANES : 1;
  int64_t n = 0;
  for (; n + GROUP <= states; n += GROUP)
    recur<GROUP, FIXED_B, FIXED_C, WILD>(t, tu, y, steps, A + n * LANES, state + n * LANES, B + n * b, B_row,
                                         C + n * c, C_row, ahead[n / GROUP % 4]);
  for (; n < states; ++n)
    recur<1, FIXED_B, FIXED_C, WILD>(t, tu, y, steps, A + n * LANES, state + n * LANES, B + n * b, B_row,
                                     C + n * c, C_row, ahead[n % 4]);
}

using Recur = void (*)(const float*, const float*, float*, int64_t, const float*, float*, int64_t, const float*,
                       int64_t, const float*, int64_t, const Ahead*);

Recur recur_for(const Scan& s, bool wild) {
  static constexpr Recur KINDS[2][2][2] = {
      {{recur_all<0, 0, 0>, recur_all<0, 0, 1>}, {recur_all<0, 1, 0>, recur_all<0, 1, 1>}},
      {{recur_all<1, 0, 0>, recur_all<1, 0, 1>}, {recur_all<1, 1, 0>, recur_all<1, 1, 1>}}};
  return KINDS[s.fixed_B != 0][s.fixed_C != 0][wild];
}

// One vector of channels of one direction, walked chunk by chunk.
struct Walker {
  const Scan* scan;
  int64_t direction, video, channel, count;  // first channel and number of channels
  float *t, *tu, *y;                         // (STEPS, LANES)
  float *A, *state, *B, *C;                  // (states, LANES); B and C if they are fixed
  Vector steepest;                           // |A| of its states

  static int64_t scratch(int64_t states) { return (3 * STEPS + 4 * states) * LANES; }

  void begin(float* memory) {
    const Scan& s = *scan;
    const int64_t size = s.states * LANES, first = direction * s.channels + channel;
    t = memory, tu = t + STEPS * LANES, y = tu + STEPS * LANES;
    A = y + STEPS * LANES, state = A + size, B = state + size, C = B + size;
    by_lane(s.A + first * s.states, s.states, count, LOG2_E, A);
    steepest = Vector{};
    for (int64_t n = 0; n < s.states; ++n) steepest = larger(larger(load(A + n * LANES), -load(A + n * LANES)), steepest);
    if (s.fixed_B) by_lane(s.B.at + direction * s.B.direction + channel * s.states, s.states, count, 1.0f, B);
    if (s.fixed_C) by_lane(s.C.at + direction * s.C.direction + channel * s.states, s.states, count, 1.0f, C);
    if (s.initial)
      by_lane(s.initial + ((direction * s.videos + video) * s.channels + channel) * s.states, s.states, count, 1.0f, state);
    else
      for (int64_t i = 0; i < size; ++i) state[i] = 0.0f;
  }

  // Steps first .. first + steps - 1 in walking order.
  void run(int64_t first, int64_t steps, int64_t next, int64_t next_channel) {
    const Scan& s = *scan;
    const bool back = backwards(s, direction);
    const int64_t row = back ? s.steps - 1 - first : first, sign = back ? -1 : 1;
    if (s.kept) keep(first / STEPS);
    const bool wild = prepare(row, sign, steps);
    const int64_t group = channel / (s.channels / s.groups);
    const float* b = s.fixed_B ? B : from(s.B, direction, video) + row * s.B.row + group * s.B_group;
    const float* c = s.fixed_C ? C : from(s.C, direction, video) + row * s.C.row + group * s.C_group;
    const int64_t next_row = back ? s.steps - 1 - next : next;
    const Ahead ahead[4] = {{from(s.u, direction, video) + next_row * s.u.row + next_channel, sign * s.u.row},
                            {from(s.delta, direction, video) + next_row * s.delta.row + next_channel, sign * s.delta.row},
                            {from(s.z, 0, video) + next_row * s.z.row + next_channel, sign * s.z.row},
                            {s.out + (video * s.steps + next_row) * s.channels + next_channel, sign * s.channels}};
    recur_for(s, wild)(t, tu, y, steps, A, state, s.states, b, s.fixed_B ? 0 : sign * s.B.row, c,
                       s.fixed_C ? 0 : sign * s.C.row, ahead);
    finish(row, sign, steps);
  }

  void keep(int64_t chunk) const {
    const Scan& s = *scan;
    const int64_t chunks = (s.steps + STEPS - 1) / STEPS;
    float* to = s.kept + ((direction * s.videos + video) * chunks + chunk) * s.states * s.channels + channel;
    for (int64_t n = 0; n < s.states; ++n) store_first(to + n * s.channels, load(state + n * LANES), count);
  }

  // t and t u; whether any exponent t A is too large for the plain power.
  bool prepare(int64_t row, int64_t sign, int64_t steps) {
    const Scan& s = *scan;
    const float* u = from(s.u, direction, video) + row * s.u.row + channel;
    const float* delta = from(s.delta, direction, video) + row * s.delta.row + channel;
    const int64_t parameter = direction * s.channels + channel;
    const Vector bias = s.delta_bias ? load_first(s.delta_bias + parameter, count) : Vector{};
    Vector longest{};
    for (int64_t l = 0; l < steps; ++l, u += sign * s.u.row, delta += sign * s.delta.row) {
      const Vector input = load_first(u, count);
      Vector time = load_first(delta, count) + bias;
      if (s.softplus) time = softplus(time);
      store(t + l * LANES, time);
      store(tu + l * LANES, time * input);
      store(y + l * LANES, Vector{});
      longest = larger(larger(time, -time), longest);
    }
    const Vector reach = longest * steepest;
    bool wild = false;
    for (int i = 0; i < LANES; ++i) wild |= !(reach[i] < 126.0f);
    return wild;
  }

  // The answers of two directions add up; the last direction applies the gate.
  void finish(int64_t row, int64_t sign, int64_t steps) const {
    const Scan& s = *scan;
    float* out = s.out + (video * s.steps + row) * s.channels + channel;
    const bool add = direction > 0, gate = s.z.at && direction == s.directions - 1;
    const float* z = gate ? from(s.z, 0, video) + row * s.z.row + channel : nullptr;
    const float* u = from(s.u, direction, video) + row * s.u.row + channel;
    const Vector skip = s.D ? load_first(s.D + direction * s.channels + channel, count) : Vector{};
    for (int64_t l = 0; l < steps; ++l, out += sign * s.channels, u += sign * s.u.row) {
      Vector sum = load(y + l * LANES);
      if (s.D) sum += skip * load_first(u, count);
      if (add) sum += load_first(out, count);
      if (gate) {
        const Vector logit = load_first(z, count);
        sum *= logit * sigmoid(logit);
        z += sign * s.z.row;
      }
      store_first(out, sum, count);
    }
  }

  void end() const {
    const Scan& s = *scan;
    float* to = s.last + ((direction * s.videos + video) * s.channels + channel) * s.states;
    for (int64_t n = 0; n < s.states; ++n)
      for (int64_t c = 0; c < count; ++c) to[c * s.states + n] = state[n * LANES + c];
  }
};

// A block is `wide` vectors of channels of a group.
int64_t blocks_of_group(const Scan& s, int64_t wide) {
  return (s.channels / s.groups + wide * LANES - 1) / (wide * LANES);
}

}  // namespace

namespace framecast::FRAMECAST_SET {

int64_t scan_items(const Scan& s, int64_t wide) { return s.videos * s.groups * blocks_of_group(s, wide); }

int64_t scan_scratch(const Scan& s, int64_t wide) { return wide * Walker::scratch(s.states); }

void scan(const Scan& s, int64_t wide, int64_t item, float* scratch) {
  const NoDenormals here;
  const int64_t blocks = blocks_of_group(s, wide), group_channels = s.channels / s.groups;
  const int64_t video = item / (s.groups * blocks), group = item / blocks % s.groups;
  const int64_t first = item % blocks * wide * LANES;  // channel of the group
  for (int64_t direction = 0; direction < s.directions; ++direction) {
    Walker walkers[WIDEST];
    int number = 0;
    for (int64_t channel = first; channel < group_channels && number < wide; channel += LANES, ++number) {
      const int64_t count = group_channels - channel < LANES ? group_channels - channel : LANES;
      walkers[number].scan = &s, walkers[number].direction = direction, walkers[number].video = video;
      walkers[number].channel = group * group_channels + channel, walkers[number].count = count;
      walkers[number].begin(scratch + number * Walker::scratch(s.states));
    }
    for (int64_t l = 0; l < s.steps; l += STEPS)
      for (int i = 0; i < number; ++i) {
        const bool end = i + PF >= number;
        const int64_t next = end ? l + STEPS : l;
        walkers[i].run(l, s.steps - l < STEPS ? s.steps - l : STEPS, next < s.steps ? next : l,
                       walkers[end ? (i + PF-number)%number : i + PF].channel);
      }
    for (int i = 0; i < number; ++i) walkers[i].end();
  }
}

void exponentials(const float* x, float* out, int64_t number) {
  for (int64_t i = 0; i + LANES <= number; i += LANES) store(out + i, power<false>(load(x + i)));
}

}  // namespace framecast::FRAMECAST_SET
