// The selective scan: states of one vector of channels in registers, chunks of steps in the first-level cache.
//
// Channels lie on lanes, so that neither the recurrence nor the sum over states ever crosses them. A chunk takes
// three passes: t = softplus(delta + bias) and t u; the recurrence, a few states at a time over all steps of the
// chunk; D and the gate. Each pass has few enough numbers for the registers. Both directions of a block of
// channels follow each other, so that the second finds the answer of the first in cache.

#include "scan.h"

namespace {

constexpr int WIDEST = 128 / LANES;  // vectors of a block at most

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

// One vector of channels of one direction, chunk by chunk.
struct Walker {
  Lane lane;
  float *t, *tu, *y;         // (STEPS, LANES)
  float *A, *state, *B, *C;  // (states, LANES); B and C if they are fixed
  Vector steepest;

  static int64_t scratch(int64_t states) { return (3 * STEPS + 4 * states) * LANES; }

  void begin(float* memory) {
    const Scan& s = *lane.scan;
    const int64_t size = s.states * LANES;
    t = memory, tu = t + STEPS * LANES, y = tu + STEPS * LANES;
    A = y + STEPS * LANES, state = A + size, B = state + size, C = B + size;
    steepest = lane.load_weights(A, B, C);
    if (s.initial)
      by_lane(s.initial + lane.state(), s.states, lane.count, 1.0f, state);
    else
      for (int64_t i = 0; i < size; ++i) state[i] = 0.0f;
  }

  // Steps first .. first + steps - 1; `next` and `next_first` tell what comes after them.
  void run(int64_t first, int64_t steps, const Lane& next, int64_t next_first) {
    const Scan& s = *lane.scan;
    if (s.kept)
      for (int64_t n = 0; n < s.states; ++n)
        store_first(lane.kept(first / STEPS) + n * s.channels, load(state + n * LANES), lane.count);
    const bool wild = prepare(first, steps);
    const Ahead ahead[4] = {{next.at(s.u, next_first), next.sign() * s.u.row},
                            {next.at(s.delta, next_first), next.sign() * s.delta.row},
                            {next.at_shared(s.z, next_first), next.sign() * s.z.row},
                            {next.out_shared(s.out, next_first), next.sign() * s.channels}};
    recur_for(s, wild)(t, tu, y, steps, A, state, s.states,
                       s.fixed_B ? B : lane.weights(s.B, s.B_group, first), s.fixed_B ? 0 : lane.sign() * s.B.row,
                       s.fixed_C ? C : lane.weights(s.C, s.C_group, first), s.fixed_C ? 0 : lane.sign() * s.C.row,
                       ahead);
    finish(first, steps);
  }

  // t, t u and zeros for the sums; whether any exponent t A is too large for the plain power.
  bool prepare(int64_t first, int64_t steps) const {
    const Scan& s = *lane.scan;
    const float *u = lane.at(s.u, first), *delta = lane.at(s.delta, first);
    const Vector bias = lane.parameter(s.delta_bias);
    Vector longest{};
    for (int64_t l = 0; l < steps; ++l) {
      Vector time = load_first(delta, lane.count) + bias;
      if (s.softplus) time = softplus(time);
      store(t + l * LANES, time);
      store(tu + l * LANES, time * load_first(u, lane.count));
      store(y + l * LANES, Vector{});
      longest = larger(larger(time, -time), longest);
      u += lane.sign() * s.u.row, delta += lane.sign() * s.delta.row;
    }
    return any_beyond(longest * steepest, 126.0f);
  }

  // D u; the answers of two directions add up; the last direction applies the gate.
  void finish(int64_t first, int64_t steps) const {
    const Scan& s = *lane.scan;
    const bool gate = s.z.at && lane.direction == s.directions - 1;
    const float *u = lane.at(s.u, first), *z = lane.at_shared(s.z, first);
    float* out = lane.out_shared(s.out, first);
    const Vector skip = lane.parameter(s.D);
    for (int64_t l = 0; l < steps; ++l) {
      Vector sum = load(y + l * LANES);
      if (s.D) sum += skip * load_first(u, lane.count);
      if (lane.direction) sum += load_first(out, lane.count);
      if (gate) {
        const Vector logit = load_first(z, lane.count);
        sum *= logit * sigmoid(logit);
      }
      store_first(out, sum, lane.count);
      u += lane.sign() * s.u.row, z += lane.sign() * s.z.row, out += lane.sign() * s.channels;
    }
  }
};

// A block is `wide` vectors of channels of a group.
int64_t blocks_of_group(const Scan& s, int64_t wide) {
  return (s.channels / s.groups + wide * LANES - 1) / (wide * LANES);
}

}  // namespace

namespace framecast::FRAMECAST_SET {

extern const int64_t lanes = LANES;

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
      walkers[number].lane = {&s, direction, video, group * group_channels + channel, count};
      walkers[number].begin(scratch + number * Walker::scratch(s.states));
    }
    for (int64_t first = 0; first < s.steps; first += STEPS)
      for (int i = 0; i < number; ++i) {
        const bool last = i + 1 == number;
        const int64_t next = last && first + STEPS < s.steps ? first + STEPS : first;
        walkers[i].run(first, s.steps - first < STEPS ? s.steps - first : STEPS, walkers[last ? 0 : i + 1].lane, next);
      }
    for (int i = 0; i < number; ++i) walkers[i].lane.by_channel(walkers[i].state, 1.0f, s.last + walkers[i].lane.state());
  }
}

void exponentials(const float* x, float* out, int64_t number) {
  for (int64_t i = 0; i + LANES <= number; i += LANES) store(out + i, power<false>(load(x + i)));
}

}  // namespace framecast::FRAMECAST_SET
