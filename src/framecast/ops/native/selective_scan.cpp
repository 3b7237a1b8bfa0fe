// The selective scan: states of one vector of channels in registers, chunks of steps in the first-level
// cache.
//
// Channels lie on lanes, so that neither the recurrence nor the sum over states ever crosses them. A chunk
// takes three passes: t = softplus(delta + bias) and t u; the recurrence, a few states at a time over all
// steps of the chunk; D and the gate. Each pass has few enough numbers for the registers. Both directions of
// a block of channels follow each other, so that the second finds the answer of the first in cache.

#include "scan.h"

namespace {

constexpr int WIDEST = 128 / LANES;  // vectors of a block at most

// Numbers of each step: vectors, or B or C of the states at hand.
struct Series {
  const float* at;
  int64_t row;

  Series from(int64_t number) const { return {at + number, row}; }
};

// What the passes hand each other, (STEPS, LANES) each.
struct Chunk {
  float *t, *tu, *y;
  int64_t steps;
};

// y = before + C h over S states, with h = 2^(t A) h + (t u) B.
template <int S, bool FIXED_B, bool FIXED_C, bool WILD>
void recur(Chunk chunk, Series before, const float* A, float* state, Series B, Series C, Ahead ahead) {
  Vector a[S], h[S];
  for (int i = 0; i < S; ++i) a[i] = load(A + i * LANES), h[i] = load(state + i * LANES);
  for (int64_t l = 0; l < chunk.steps; ++l) {
    __builtin_prefetch(ahead.at);
    const Vector time = load(chunk.t + l * LANES), input = load(chunk.tu + l * LANES);
    Vector decay[S], sum;  // of these states first, then to what is there: less is rounded away
    decays<WILD>(time, a, decay);
#pragma GCC unroll 4
    for (int i = 0; i < S; ++i) {
      h[i] = decay[i] * h[i] + input * weight<FIXED_B>(B.at, i);
      const Vector part = h[i] * weight<FIXED_C>(C.at, i);
      sum = i ? sum + part : part;
    }
    store(chunk.y + l * LANES, load(before.at) + sum);
    before.at += before.row, B.at += B.row, C.at += C.row, ahead.at += ahead.row;
  }
  for (int i = 0; i < S; ++i) store(state + i * LANES, h[i]);
}

template <bool FIXED_B, bool FIXED_C, bool WILD>
void recur_all(Chunk chunk, int64_t states, const float* A, float* state, Series B, Series C,
               const Ahead* ahead) {
  constexpr int64_t b = FIXED_B ? LANES : 1, c = FIXED_C ? LANES : 1;
  const Series sum{chunk.y, LANES}, nothing{ZEROS, 0};
  int64_t n = 0;
  for (; n + GROUP <= states; n += GROUP)
    recur<GROUP, FIXED_B, FIXED_C, WILD>(chunk, n ? sum : nothing, A + n * LANES, state + n * LANES,
                                         B.from(n * b), C.from(n * c), ahead[n / GROUP % 4]);
  for (; n < states; ++n)
    recur<1, FIXED_B, FIXED_C, WILD>(chunk, n ? sum : nothing, A + n * LANES, state + n * LANES,
                                     B.from(n * b), C.from(n * c), ahead[n % 4]);
}

using Recur = void (*)(Chunk, int64_t, const float*, float*, Series, Series, const Ahead*);

Recur recur_for(const Scan& s, bool wild) {
  static constexpr Recur KINDS[2][2][2] = {
      {{recur_all<0, 0, 0>, recur_all<0, 0, 1>}, {recur_all<0, 1, 0>, recur_all<0, 1, 1>}},
      {{recur_all<1, 0, 0>, recur_all<1, 0, 1>}, {recur_all<1, 1, 0>, recur_all<1, 1, 1>}}};
  return KINDS[s.fixed_B != 0][s.fixed_C != 0][wild];
}

// One vector of channels of one direction, chunk by chunk.
struct Walker {
  Lane lane;
  Chunk chunk;
  float *A, *state, *B, *C;  // (states, LANES); B and C if they are fixed
  Vector steepest;

  static int64_t scratch(int64_t states) { return (3 * STEPS + 4 * states) * LANES; }

  void begin(float* memory) {
    const Scan& s = *lane.scan;
    const int64_t size = s.states * LANES;
    chunk = {memory, memory + STEPS * LANES, memory + 2 * STEPS * LANES};
    A = memory + 3 * STEPS * LANES, state = A + size, B = state + size, C = B + size;
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
    chunk.steps = steps;
    const bool wild = prepare(first);
    const Ahead ahead[4] = {{next.at(s.u, next_first), next.sign() * s.u.row},
                            {next.at(s.delta, next_first), next.sign() * s.delta.row},
                            {next.at_shared(s.z, next_first), next.sign() * s.z.row},
                            {next.out_shared(s.out, next_first), next.sign() * s.channels}};
    const Series b =
        s.fixed_B ? Series{B, 0} : Series{lane.weights(s.B, s.B_group, first), lane.sign() * s.B.row};
    const Series c =
        s.fixed_C ? Series{C, 0} : Series{lane.weights(s.C, s.C_group, first), lane.sign() * s.C.row};
    recur_for(s, wild)(chunk, s.states, A, state, b, c, ahead);
    finish(first);
  }

  // t and t u; whether any exponent t A is too large for the plain power.
  bool prepare(int64_t first) const {
    const Scan& s = *lane.scan;
    const float *u = lane.at(s.u, first), *delta = lane.at(s.delta, first);
    const Vector bias = lane.parameter(s.delta_bias);
    Vector longest{};
    const int64_t u_row = lane.sign() * s.u.row, delta_row = lane.sign() * s.delta.row;
    for (int64_t l = 0; l < chunk.steps; l += 2) {
      const int64_t more = l + 1 < chunk.steps;  // the last step of an odd number is taken twice
      Pair time = {load_first(delta, lane.count) + bias,
                   load_first(delta + more * delta_row, lane.count) + bias};
      if (s.softplus) time = softplus(time);
      store(chunk.t + l * LANES, time.a), store(chunk.t + (l + more) * LANES, time.b);
      store(chunk.tu + l * LANES, time.a * load_first(u, lane.count));
      store(chunk.tu + (l + more) * LANES, time.b * load_first(u + more * u_row, lane.count));
      longest = larger(larger(size(time.a), size(time.b)), longest);
      u += 2 * u_row, delta += 2 * delta_row;
    }
    return any_beyond(longest * steepest, 126.0f);
  }

  // D u; the answers of two directions add up; the last direction applies the gate.
  void finish(int64_t first) const {
    const Scan& s = *lane.scan;
    const bool gate = s.z.at && lane.direction == s.directions - 1;
    const float *u = lane.at(s.u, first), *z = lane.at_shared(s.z, first);
    float* out = lane.out_shared(s.out, first);
    const Vector skip = lane.parameter(s.D);
    const int64_t u_row = lane.sign() * s.u.row, z_row = lane.sign() * s.z.row,
                  row = lane.sign() * s.channels;
    for (int64_t l = 0; l < chunk.steps; l += 2) {
      const int64_t more = l + 1 < chunk.steps;
      Pair sum = {load(chunk.y + l * LANES), load(chunk.y + (l + more) * LANES)};
      const auto two = [&](const float* x, int64_t x_row) {
        return Pair{load_first(x, lane.count), load_first(x + more * x_row, lane.count)};
      };
      if (s.D) sum = sum + Pair{skip, skip} * two(u, u_row);
      if (lane.direction) sum = sum + two(out, row);
      if (gate) {
        const Pair logit = two(z, z_row);
        sum = sum * logit * sigmoid(logit);
      }
      store_first(out, sum.a, lane.count), store_first(out + more * row, sum.b, lane.count);
      u += 2 * u_row, z += 2 * z_row, out += 2 * row;
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
        walkers[i].run(first, s.steps - first < STEPS ? s.steps - first : STEPS,
                       walkers[last ? 0 : i + 1].lane, next);
      }
    for (int i = 0; i < number; ++i)
      walkers[i].lane.by_channel(walkers[i].state, s.last + walkers[i].lane.state());
  }
}

void exponentials(const float* x, float* out, int64_t number) {
  for (int64_t i = 0; i + LANES <= number; i += LANES) store(out + i, power<false>(load(x + i)));
}

}  // namespace framecast::FRAMECAST_SET
