// Depthwise convolution over time with bias and SiLU in one pass, forwards and backwards.
//
// Channels lie on lanes. A step's answer is the sum of `taps` rows of x, so a few neighbouring steps are
// taken together and share their rows in registers; rows outside the sequence are a row of zeros. Both
// directions of a piece are done one after the other while its rows are in cache.

#include "kernels.h"
#include "vector_math.h"

namespace {

using framecast::Convolution;

constexpr int STEPS = 4;          // taken together
constexpr int MOST_TAPS = 8;      // that fit the table of rows
constexpr int64_t CHUNK = 32;     // steps whose slopes are kept between the two passes of the gradient

__attribute__((noinline)) Vector load_part(const float* from, int64_t count) {
  Vector x{};
  for (int64_t c = 0; c < count; ++c) x[c] = from[c];
  return x;
}

__attribute__((noinline)) void store_part(float* to, Vector x, int64_t count) {
  for (int64_t c = 0; c < count; ++c) to[c] = x[c];
}

// The first `count` numbers of a vector; the channels need not be whole vectors.
inline Vector load_some(const float* from, int64_t count) {
  return count == LANES ? load(from) : load_part(from, count);
}

inline void store_some(float* to, Vector x, int64_t count) {
  count == LANES ? store(to, x) : store_part(to, x, count);
}

// The rows that steps `first` .. `first + steps - 1` of a convolution see.
struct Rows {
  const float* at[STEPS + MOST_TAPS - 1];

  Rows(const float* x, int64_t row, int64_t length, const float* zeros, int64_t first, int64_t number) {
    for (int64_t i = 0; i < number; ++i) {
      const bool inside = first + i >= 0 && first + i < length;
      at[i] = inside ? x + (first + i) * row : zeros;
    }
  }
};

// y[r] = bias + sum_j weight[j] rows[r + j] on one vector of channels.
template <int R, int W>
struct Sums {
  Vector y[R];

  __attribute__((always_inline)) Sums(const Rows& rows, const float* weight, const float* bias, int64_t channels, int64_t taps, int64_t c,
       int64_t count) {
    const Vector start = bias ? load_some(bias + c, count) : Vector{};
    for (int r = 0; r < R; ++r) y[r] = start;
    const int number = W ? W : static_cast<int>(taps);
#pragma GCC unroll 4
    for (int j = 0; j < number; ++j) {
      const Vector w = load_some(weight + j * channels + c, count);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) y[r] += w * load_some(rows.at[r + j] + c, count);
    }
  }
};

// Calls work.run<R>(first) for groups of steps first .. first + R - 1 in [first, last).
template <class Work>
inline void by_steps(int64_t first, int64_t last, const Work& work) {
  for (; first + STEPS <= last; first += STEPS) work.template run<STEPS>(first);
  for (; first < last; ++first) work.template run<1>(first);
}

// The convolution of one direction. add: the answer is added to what is there, as for input gradients.
template <int W>
struct Convolve {
  const float* x;
  int64_t x_row, x_first, length;  // x points to the row of step x_first
  const float *weight, *bias, *zeros;
  float* out;  // row of step 0
  int64_t out_row, channels, taps, offset;
  bool silu_, add;

  template <int R>
  void run(int64_t first) const {
    const Rows rows(x, x_row, length, zeros, first + offset - x_first, R + taps - 1);
    float* to = out + first * out_row;
    int64_t c = 0;
    for (; c + LANES <= channels; c += LANES) vector<R>(rows, to, c, LANES);
    if (c < channels) vector<R>(rows, to, c, channels - c);
  }

  template <int R>
  __attribute__((always_inline)) void vector(const Rows& rows, float* to, int64_t c, int64_t count) const {
    const Sums<R, W> sums(rows, weight, bias, channels, taps, c, count);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      float* const here = to + r * out_row + c;
      Vector y = silu_ ? silu(sums.y[r]) : sums.y[r];
      if (add) y += load_some(here, count);
      store_some(here, y, count);
    }
  }
};

// slopes = grad * activation'(convolution) for a group of steps; sums[j] += slopes * rows of tap j,
// sums[taps] += slopes.
template <int W>
struct Slopes {
  const float *x, *weight, *bias, *zeros, *grad;
  int64_t x_row, grad_row, length, channels, taps, offset;
  float* slopes;  // row of step slopes_first
  int64_t slopes_first;
  float* sums;  // (taps + 1, channels), or null where these steps are counted elsewhere
  bool silu_;

  template <int R>
  void run(int64_t first) const {
    const Rows rows(x, x_row, length, zeros, first + offset, R + taps - 1);
    int64_t c = 0;
    for (; c + LANES <= channels; c += LANES) vector<R>(rows, first, c, LANES);
    if (c < channels) vector<R>(rows, first, c, channels - c);
  }

  template <int R>
  __attribute__((always_inline)) void vector(const Rows& rows, int64_t first, int64_t c,
                                             int64_t count) const {
    Vector slope[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) slope[r] = load_some(grad + (first + r) * grad_row + c, count);
    if (silu_) {
      const Sums<R, W> before(rows, weight, bias, channels, taps, c, count);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) slope[r] *= silu_slope(before.y[r]);
    }
    Vector sum{};
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      store_some(slopes + (first + r - slopes_first) * channels + c, slope[r], count);
      sum += slope[r];
    }
    if (!sums) return;
    const int number = W ? W : static_cast<int>(taps);
#pragma GCC unroll 4
    for (int j = 0; j < number; ++j) {
      float* const to = sums + j * channels + c;
      Vector total = load_some(to, count);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) total += slope[r] * load_some(rows.at[r + j] + c, count);
      store_some(to, total, count);
    }
    float* const to = sums + taps * channels + c;
    store_some(to, load_some(to, count) + sum, count);
  }
};

// The first step that step 0 sees.
inline int64_t offset_of(const Convolution& k, bool reverse) { return reverse ? 0 : 1 - k.taps; }

template <int W>
void forward(const Convolution& k, int64_t item, int64_t first, int64_t last, float* scratch) {
  for (int64_t c = 0; c < k.channels; ++c) scratch[c] = 0.0f;
  const int64_t matrix = k.length * k.channels;
  // A few steps at a time, so that the second direction finds their rows in the nearest cache.
  for (int64_t from = first; from < last; from += STEPS)
    for (int64_t d = 0; d < k.directions; ++d) {
      const bool reverse = k.reverse != (d == 1);
      const Convolve<W> work{k.x + item * k.x_item,
                             k.x_row,
                             0,
                             k.length,
                             k.weight + d * k.taps * k.channels,
                             k.bias ? k.bias + d * k.channels : nullptr,
                             scratch,
                             k.out + (d * k.items + item) * matrix,
                             k.channels,
                             k.channels,
                             k.taps,
                             offset_of(k, reverse),
                             k.silu != 0,
                             false};
      by_steps(from, from + STEPS < last ? from + STEPS : last, work);
    }
}

template <int W>
void backward(const Convolution& k, int64_t item, int64_t first, int64_t last, float* sums, float* scratch) {
  for (int64_t c = 0; c < k.channels; ++c) scratch[c] = 0.0f;
  float* const slopes = scratch + k.channels;
  float* const mirrored = slopes + (CHUNK + k.taps - 1) * k.channels;
  const int64_t matrix = k.length * k.channels, weights = k.taps * k.channels;
  for (int64_t begin = first; begin < last; begin += CHUNK) {
    const int64_t end = begin + CHUNK < last ? begin + CHUNK : last;
    for (int64_t d = 0; d < k.directions; ++d) {
      const bool reverse = k.reverse != (d == 1);
      const float* const weight = k.weight + d * weights;
      // x[m] is seen by the steps m + back .. m + back + taps - 1.
      const int64_t back = reverse ? 1 - k.taps : 0;
      const int64_t low = begin + back > 0 ? begin + back : 0;
      const int64_t high = end + back + k.taps - 1 < k.length ? end + back + k.taps - 1 : k.length;
      Slopes<W> work{k.x + item * k.x_item,
                     weight,
                     k.bias ? k.bias + d * k.channels : nullptr,
                     scratch,
                     k.grad + (d * k.items + item) * matrix,
                     k.x_row,
                     k.channels,
                     k.length,
                     k.channels,
                     k.taps,
                     offset_of(k, reverse),
                     slopes,
                     low,
                     nullptr,
                     k.silu != 0};
      by_steps(low, begin, work);
      by_steps(end, high, work);
      work.sums = sums + d * (weights + k.channels);
      by_steps(begin, end, work);
      for (int64_t j = 0; j < k.taps; ++j)
        for (int64_t c = 0; c < k.channels; ++c)
          mirrored[j * k.channels + c] = weight[(k.taps - 1 - j) * k.channels + c];
      const Convolve<W> spread{slopes,
                               k.channels,
                               low,
                               high - low,
                               mirrored,
                               nullptr,
                               scratch,
                               k.out + item * matrix,
                               k.channels,
                               k.channels,
                               k.taps,
                               back,
                               false,
                               d > 0};
      by_steps(begin, end, spread);
    }
  }
}

}  // namespace

namespace framecast::FRAMECAST_SET {

int64_t convolution_scratch(const Convolution& k) { return (1 + CHUNK + 2 * k.taps) * k.channels; }

void convolve(const Convolution& k, int64_t item, int64_t first, int64_t last, float* scratch) {
  if (k.taps == 4) return forward<4>(k, item, first, last, scratch);
  forward<0>(k, item, first, last, scratch);
}

void convolve_backward(const Convolution& k, int64_t item, int64_t first, int64_t last, float* sums,
                       float* scratch) {
  if (k.taps == 4) return backward<4>(k, item, first, last, sums, scratch);
  backward<0>(k, item, first, last, sums, scratch);
}

}  // namespace framecast::FRAMECAST_SET
