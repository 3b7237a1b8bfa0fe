// Gradients of the selective scan, from the states that the forward pass kept before each chunk.
//
// Chunks are taken from the last to the first. A few states at a time, a chunk's states and decays are
// computed again and stored, then walked over backwards while they are in the first-level cache. Gradients of
// B and C are sums over channels: lanes of a few states are folded into one vector, added up over the vectors
// of a slab of channels, and folded to numbers once per slab.

#include "scan.h"

namespace {

constexpr int64_t SLAB = framecast::SCAN_SLAB;
constexpr int WIDEST = SLAB / LANES;

#if defined(__clang__)
#define FRAMECAST_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FRAMECAST_PICK(a, b, ...) __builtin_shuffle(a, b, Integers{__VA_ARGS__})
#endif

template <int... I>
struct Lanes {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
  using Type = Lanes<I...>;
};
using All = typename Count<LANES>::Type;

// Lanes i and i ^ W added: those of a where i & W is 0, those of b where not.
template <int W, int... I>
inline Vector fold(Vector a, Vector b, Lanes<I...>) {
  return FRAMECAST_PICK(a, b, (I & W ? LANES + I : I)...) +
         FRAMECAST_PICK(a, b, (I & W ? LANES + (I ^ W) : I ^ W)...);
}

// S vectors to one: segment i of its lanes holds partial sums of vector i.
template <int S>
inline Vector folded(const Vector* x) {
  if constexpr (S == 1)
    return x[0];
  else if constexpr (S == 2)
    return fold<LANES / 2>(x[0], x[1], All{});
  else
    return fold<LANES / 4>(fold<LANES / 2>(x[0], x[2], All{}), fold<LANES / 2>(x[1], x[3], All{}), All{});
}

// The sum of each segment of `width` lanes, in all of its lanes.
template <int W>
inline Vector summed(Vector x) {
  if constexpr (W == 1)
    return x;
  else
    return summed<W / 2>(fold<W / 2>(x, x, All{}));
}

// What the passes hand each other, per step of the chunk and lane.
struct Chunk {
  float *t, *tu, *grad;         // grad: of C h, with the gate's part
  float *slope_t, *slope_z;     // of the softplus at delta, of the answer at z over C h + D u
  float *y, *grad_tu, *grad_t;  // sums over states; y only where there is a gate, grad_t less a factor ln 2
  float *before, *decay;        // of the S states at hand: (STEPS + 1, S, LANES), (STEPS, S, LANES)
  int64_t steps;
};

// The states n .. n + S - 1 again, from the one that was kept.
template <int S, bool FIXED_B, bool FIXED_C, bool WILD>
void retrace(const Chunk& c, bool answer, const float* A, const float* kept, int64_t kept_row, int64_t count,
             const float* B, int64_t B_row, const float* C, int64_t C_row, Ahead ahead) {
  Vector a[S], h[S];
  for (int i = 0; i < S; ++i) a[i] = load(A + i * LANES), h[i] = load_first(kept + i * kept_row, count);
  for (int64_t l = 0; l < c.steps; ++l, B += B_row, C += C_row, ahead.at += ahead.row) {
    __builtin_prefetch(ahead.at);
    const Vector time = load(c.t + l * LANES), input = load(c.tu + l * LANES);
    Vector decay[S], sum{};
    decays<WILD>(time, a, decay);
#pragma GCC unroll 4
    for (int i = 0; i < S; ++i) {
      store(c.before + (l * S + i) * LANES, h[i]);
      store(c.decay + (l * S + i) * LANES, decay[i]);
      h[i] = decay[i] * h[i] + input * weight<FIXED_B>(B, i);
      sum += h[i] * weight<FIXED_C>(C, i);
    }
    if (answer) store(c.y + l * LANES, load(c.y + l * LANES) + sum);
  }
  for (int i = 0; i < S; ++i) store(c.before + (c.steps * S + i) * LANES, h[i]);
}

// The way back over them. `reach` is the gradient of the state before the step at hand; sums_B and sums_C
// (STEPS, sets of states, LANES) take the folded gradients of B and C, or (S, LANES) fixed ones.
template <int S, bool FIXED_B, bool FIXED_C>
void walk_back(const Chunk& c, const float* A, float* reach, float* grad_A, const float* B, int64_t B_row,
               const float* C, int64_t C_row, float* sums_B, float* sums_C, int64_t sums_row, Ahead ahead) {
  Vector r[S], dA[S], dB[S] = {}, dC[S] = {};
  for (int i = 0; i < S; ++i) r[i] = load(reach + i * LANES), dA[i] = load(grad_A + i * LANES);
  B += (c.steps - 1) * B_row, C += (c.steps - 1) * C_row;
  for (int64_t l = c.steps - 1; l >= 0; --l, B -= B_row, C -= C_row, ahead.at += ahead.row) {
    __builtin_prefetch(ahead.at, 1);
    const Vector time = load(c.t + l * LANES), input = load(c.tu + l * LANES),
                 grad = load(c.grad + l * LANES);
    Vector grad_tu{}, grad_t{}, of_B[S], of_C[S];
#pragma GCC unroll 4
    for (int i = 0; i < S; ++i) {
      const Vector state = load(c.before + ((l + 1) * S + i) * LANES);
      r[i] += grad * weight<FIXED_C>(C, i);
      grad_tu += r[i] * weight<FIXED_B>(B, i);
      of_B[i] = r[i] * input, of_C[i] = grad * state;
      r[i] *= load(c.decay + (l * S + i) * LANES);
      const Vector exponent = r[i] * load(c.before + (l * S + i) * LANES);
      grad_t += exponent * load(A + i * LANES);
      dA[i] += exponent * time;
    }
    store(c.grad_tu + l * LANES, load(c.grad_tu + l * LANES) + grad_tu);
    store(c.grad_t + l * LANES, load(c.grad_t + l * LANES) + grad_t);
    if (FIXED_B)
      for (int i = 0; i < S; ++i) dB[i] += of_B[i];
    else
      store(sums_B + l * sums_row, load(sums_B + l * sums_row) + folded<S>(of_B));
    if (FIXED_C)
      for (int i = 0; i < S; ++i) dC[i] += of_C[i];
    else
      store(sums_C + l * sums_row, load(sums_C + l * sums_row) + folded<S>(of_C));
  }
  for (int i = 0; i < S; ++i) {
    store(reach + i * LANES, r[i]), store(grad_A + i * LANES, dA[i]);
    if (FIXED_B) store(sums_B + i * LANES, load(sums_B + i * LANES) + dB[i]);
    if (FIXED_C) store(sums_C + i * LANES, load(sums_C + i * LANES) + dC[i]);
  }
}

int64_t sets(int64_t states) { return states / GROUP + states % GROUP; }  // of states taken together

struct Weights {
  const float *B, *C;
  int64_t B_row, C_row;
  float *sums_B, *sums_C;
};

template <bool FIXED_B, bool FIXED_C, bool WILD>
void there_and_back(const Chunk& c, bool answer, int64_t states, const float* A, float* reach, float* grad_A,
                    const float* kept, int64_t kept_row, int64_t count, Weights w, const Ahead* ahead) {
  const int64_t row = sets(states) * LANES;
  int64_t set = 0, n = 0;
  const auto next = [&](auto number) {
    constexpr int S = decltype(number)::value;
    retrace<S, FIXED_B, FIXED_C, WILD>(c, answer, A + n * LANES, kept + n * kept_row, kept_row, count, w.B,
                                       w.B_row, w.C, w.C_row, ahead[set % 4]);
    walk_back<S, FIXED_B, FIXED_C>(c, A + n * LANES, reach + n * LANES, grad_A + n * LANES, w.B, w.B_row, w.C,
                                   w.C_row, w.sums_B, w.sums_C, row, ahead[4 + set % 4]);
    w.B += FIXED_B ? S * LANES : S, w.C += FIXED_C ? S * LANES : S;
    w.sums_B += FIXED_B ? S * LANES : LANES, w.sums_C += FIXED_C ? S * LANES : LANES;
    n += S, ++set;
  };
  while (n + GROUP <= states) next(Constant<GROUP>{});
  while (n < states) next(Constant<1>{});
}

using ThereAndBack = void (*)(const Chunk&, bool, int64_t, const float*, float*, float*, const float*,
                              int64_t, int64_t, Weights, const Ahead*);

ThereAndBack kind(const Scan& s, bool wild) {
  static constexpr ThereAndBack KINDS[2][2][2] = {{{there_and_back<0, 0, 0>, there_and_back<0, 0, 1>},
                                                   {there_and_back<0, 1, 0>, there_and_back<0, 1, 1>}},
                                                  {{there_and_back<1, 0, 0>, there_and_back<1, 0, 1>},
                                                   {there_and_back<1, 1, 0>, there_and_back<1, 1, 1>}}};
  return KINDS[s.fixed_B != 0][s.fixed_C != 0][wild];
}

// One vector of channels of one direction, from the last chunk to the first.
struct Walker {
  Lane lane;
  float *A, *reach, *grad_A;       // (states, LANES)
  float *B, *C, *grad_B, *grad_C;  // the same, if they are fixed
  Vector steepest, grad_D, grad_bias;

  static int64_t scratch(int64_t states) { return 7 * states * LANES; }

  void begin(float* memory) {
    const Scan& s = *lane.scan;
    const int64_t part = s.states * LANES;
    A = memory, reach = A + part, grad_A = reach + part, B = grad_A + part, C = B + part;
    grad_B = C + part, grad_C = grad_B + part;
    for (float* x = reach; x != memory + 7 * part; ++x) *x = 0.0f;
    steepest = lane.load_weights(A, B, C);
    if (s.grad_last) by_lane(s.grad_last + lane.state(), s.states, lane.count, 1.0f, reach);
    grad_D = grad_bias = Vector{};
  }

  void run(int64_t first, const Chunk& chunk, float* sums_B, float* sums_C, const Lane& next,
           int64_t next_first) {
    const Scan& s = *lane.scan;
    const bool wild = prepare(first, chunk);
    const Weights weights{s.fixed_B ? B : lane.weights(s.B, s.B_group, first),
                          s.fixed_C ? C : lane.weights(s.C, s.C_group, first),
                          s.fixed_B ? 0 : lane.sign() * s.B.row,
                          s.fixed_C ? 0 : lane.sign() * s.C.row,
                          s.fixed_B ? grad_B : sums_B,
                          s.fixed_C ? grad_C : sums_C};
    const int64_t row = next.sign() * s.channels;  // of the gradients
    const Ahead ahead[8] = {{next.at(s.u, next_first), next.sign() * s.u.row},
                            {next.at(s.delta, next_first), next.sign() * s.delta.row},
                            {next.at_shared(s.grad_out, next_first), next.sign() * s.grad_out.row},
                            {next.at_shared(s.z, next_first), next.sign() * s.z.row},
                            {next.out(s.grad_u, next_first), row},
                            {next.out(s.grad_delta, next_first), row},
                            {next.out_shared(s.grad_z, next_first), row},
                            {next.out_shared(s.grad_z, next_first), 0}};
    kind(s, wild)(chunk, s.grad_z, s.states, A, reach, grad_A, lane.kept(first / STEPS), s.channels,
                  lane.count, weights, ahead);
    finish(first, chunk);
  }

  // t, t u, the gradient of C h, and zeros for the sums; whether exponents can be too large.
  bool prepare(int64_t first, const Chunk& chunk) const {
    const Scan& s = *lane.scan;
    const int64_t count = lane.count, sign = lane.sign();
    const float *u = lane.at(s.u, first), *delta = lane.at(s.delta, first);
    const float *out = lane.at_shared(s.grad_out, first), *z = lane.at_shared(s.z, first);
    const Vector bias = lane.parameter(s.delta_bias);
    Vector longest{};
    for (int64_t l = 0; l < chunk.steps; l += 2) {
      const int64_t more = l + 1 < chunk.steps;  // the last step of an odd number is taken twice
      const auto two = [&](const float* x, int64_t row) {
        x += l * sign * row;
        return Pair{load_first(x, count), load_first(x + more * sign * row, count)};
      };
      const auto keep = [&](float* to, Pair x) {
        store(to + l * LANES, x.a), store(to + (l + more) * LANES, x.b);
      };
      Pair time = two(delta, s.delta.row) + Pair{bias, bias}, grad = two(out, s.grad_out.row), slope;
      if (s.softplus) time = softplus(time, &slope), keep(chunk.slope_t, slope);
      if (s.z.at) {
        const Pair logit = two(z, s.z.row);
        Pair rest;
        const Pair gate = sigmoid(logit, &rest), silu = logit * gate;
        keep(chunk.slope_z, grad * (gate + silu * rest));
        grad = grad * silu;
      }
      keep(chunk.t, time), keep(chunk.tu, time * two(u, s.u.row)), keep(chunk.grad, grad);
      keep(chunk.y, Pair{}), keep(chunk.grad_tu, Pair{}), keep(chunk.grad_t, Pair{});
      longest = larger(larger(size(time.a), size(time.b)), longest);
    }
    return any_beyond(longest * steepest, 126.0f);
  }

  void finish(int64_t first, const Chunk& chunk) {
    const Scan& s = *lane.scan;
    const int64_t count = lane.count, sign = lane.sign();
    const float* u = lane.at(s.u, first);
    float *to_u = lane.out(s.grad_u, first), *to_delta = lane.out(s.grad_delta, first);
    float* to_z = lane.out_shared(s.grad_z, first);
    const Vector skip = lane.parameter(s.D);
    for (int64_t l = 0; l < chunk.steps; ++l) {
      const int64_t row = l * sign * s.channels, at = l * LANES;
      const Vector input = load_first(u + l * sign * s.u.row, count), grad = load(chunk.grad + at);
      const Vector grad_tu = load(chunk.grad_tu + at);
      Vector grad_delta = input * grad_tu + LN_2 * load(chunk.grad_t + at);
      if (s.softplus) grad_delta *= load(chunk.slope_t + at);
      store_first(to_u + row, load(chunk.t + at) * grad_tu + skip * grad, count);
      store_first(to_delta + row, grad_delta, count);
      grad_D += grad * input, grad_bias += grad_delta;
      if (!s.grad_z) continue;
      Vector grad_z = load(chunk.slope_z + at) * (load(chunk.y + at) + skip * input);
      if (lane.direction) grad_z += load_first(to_z + row, count);
      store_first(to_z + row, grad_z, count);
    }
  }

  void end() const {
    const Scan& s = *lane.scan;
    const int64_t parameter = (lane.video * s.directions + lane.direction) * s.channels + lane.channel;
    lane.by_channel(reach, s.grad_initial + lane.state());
    lane.by_channel(grad_A, s.grad_A + parameter * s.states);
    if (s.fixed_B) lane.by_channel(grad_B, s.grad_B + parameter * s.states);
    if (s.fixed_C) lane.by_channel(grad_C, s.grad_C + parameter * s.states);
    store_first(s.grad_D + parameter, grad_D, lane.count);
    store_first(s.grad_bias + parameter, grad_bias, lane.count);
  }
};

// The folded sums of a chunk as numbers: row `row` of (steps, states), and on by `sign`.
void number(const float* sums, int64_t steps, int64_t states, float* to, int64_t sign) {
  for (int64_t l = 0; l < steps; ++l, to += sign * states) {
    int64_t n = 0;
    for (; n + GROUP <= states; n += GROUP, sums += LANES) {
      const Vector sum = summed<LANES / GROUP>(load(sums));
      for (int i = 0; i < GROUP; ++i) to[n + i] = sum[i * (LANES / GROUP)];
    }
    for (; n < states; ++n, sums += LANES) to[n] = summed<LANES>(load(sums))[0];
  }
}

int64_t slabs_of_group(const Scan& s) { return (s.channels / s.groups + SLAB - 1) / SLAB; }

}  // namespace

namespace framecast::FRAMECAST_SET {

int64_t scan_backward_items(const Scan& s) { return s.videos * s.groups * slabs_of_group(s); }

int64_t scan_backward_scratch(const Scan& s) {
  const int64_t per_chunk = (8 + 2 * GROUP + 2 * sets(s.states)) * STEPS + GROUP;
  return per_chunk * LANES + WIDEST * Walker::scratch(s.states);
}

void scan_backward(const Scan& s, int64_t item, float* scratch) {
  const NoDenormals here;
  const int64_t slabs = slabs_of_group(s), group_channels = s.channels / s.groups;
  const int64_t video = item / (s.groups * slabs), slab = item % (s.groups * slabs);
  const int64_t first_channel = slab % slabs * SLAB, group = slab / slabs;
  const int64_t size = STEPS * LANES, sums = sets(s.states) * size;
  Chunk chunk{scratch,
              scratch + size,
              scratch + 2 * size,
              scratch + 3 * size,
              scratch + 4 * size,
              scratch + 5 * size,
              scratch + 6 * size,
              scratch + 7 * size,
              scratch + 8 * size};
  chunk.decay = chunk.before + (STEPS + 1) * GROUP * LANES;
  float *const sums_B = chunk.decay + STEPS * GROUP * LANES, *const sums_C = sums_B + sums;
  float* const memory = sums_C + sums;
  for (int64_t direction = 0; direction < s.directions; ++direction) {
    Walker walkers[WIDEST];
    int walking = 0;
    for (int64_t c = first_channel; c < group_channels && walking < WIDEST; c += LANES, ++walking) {
      const int64_t count = group_channels - c < LANES ? group_channels - c : LANES;
      walkers[walking].lane = {&s, direction, video, group * group_channels + c, count};
      walkers[walking].begin(memory + walking * Walker::scratch(s.states));
    }
    const int64_t chunks = (s.steps + STEPS - 1) / STEPS;
    for (int64_t first = (chunks - 1) * STEPS; first >= 0; first -= STEPS) {
      chunk.steps = s.steps - first < STEPS ? s.steps - first : STEPS;
      for (int64_t i = 0; i < 2 * sums; ++i) sums_B[i] = 0.0f;
      for (int i = 0; i < walking; ++i) {
        const bool last = i + 1 == walking;
        const int64_t next = last && first ? first - STEPS : first;
        walkers[i].run(first, chunk, sums_B, sums_C, walkers[last ? 0 : i + 1].lane, next);
      }
      const Lane& lane = walkers[0].lane;
      const int64_t row =
          ((direction * s.videos + video) * s.groups * slabs + slab) * s.steps + lane.row(first);
      if (!s.fixed_B) number(sums_B, chunk.steps, s.states, s.grad_B + row * s.states, lane.sign());
      if (!s.fixed_C) number(sums_C, chunk.steps, s.states, s.grad_C + row * s.states, lane.sign());
    }
    for (int i = 0; i < walking; ++i) walkers[i].end();
  }
}

}  // namespace framecast::FRAMECAST_SET
