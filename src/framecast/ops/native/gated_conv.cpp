// A gated layer of a temporal network in one pass: a dilated convolution of three taps to values and gates,
// value * sigmoid(gate), a linear map, ReLU, factor and shift of each channel, and the residual.
//
// Frames t and t + dilation share their inputs, so both answers are made together with Winograd's F(2, 3): four
// products in place of six. What a layer computes for a few frames stays in cache until their answer is
// written.

#include "kernels.h"
#include "vector_math.h"
#include "vectors.h"

namespace {

using framecast::GatedLayer;

constexpr int64_t PAIRS = 32;  // of a piece

enum Into { BOTH = 0, SUM_AND_DIFFERENCE = 1, FIRST = 2, SECOND = 3 };

// Adds inputs times one of the four transformed weights to the answers at t (near) and t + dilation (far).
template <Into into>
struct Products {
  const float *inputs, *weight, *bias;  // (pairs, width); of this panel
  float *near, *far;                    // rows of 2 width numbers, at this panel
  int64_t width;

  template <int R>
  void run(int64_t first) const {
    Tile<R, 2> tile;
    const int64_t row = 2 * width;
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < 2; ++n) {
        const int64_t at = (first + r) * row + n * LANES;
        tile.at[r][n] = into == BOTH     ? load(bias + n * LANES)
                        : into == FIRST  ? load(near + at)
                        : into == SECOND ? load(far + at)
                                         : Vector{};
      }
    multiply_add(tile, inputs + first * width, width, 1, weight, width);
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < 2; ++n) {
        const int64_t at = (first + r) * row + n * LANES;
        const Vector y = tile.at[r][n];
        if (into == BOTH || into == FIRST) store(near + at, y);
        if (into == BOTH || into == SECOND) store(far + at, y);
        if (into == SUM_AND_DIFFERENCE) {
          store(near + at, load(near + at) + y);
          store(far + at, load(far + at) - y);
        }
      }
  }
};

// One panel of the linear map and all that follows it.
struct Mixing {
  const GatedLayer& l;
  const float *gated, *weight;  // (frames, width); of this panel
  const int64_t* frames;        // of the rows
  int64_t column;

  template <int R>
  void run(int64_t first) const {
    Tile<R, 2> tile;
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < 2; ++n) tile.at[r][n] = load(l.mix_bias + column + n * LANES);
    multiply_add(tile, gated + first * l.width, l.width, 1, weight, l.width);
    for (int n = 0; n < 2; ++n) {
      const Vector factor = load(l.factor + column + n * LANES), shift = load(l.shift + column + n * LANES);
      for (int r = 0; r < R; ++r) {
        const Vector y = tile.at[r][n];
        const int64_t at = frames[first + r] * l.width + column + n * LANES;
        store(l.out + at, load(l.x + at) + shift + factor * (y < 0.0f ? Vector{} : y));
      }
    }
  }
};

}  // namespace

namespace framecast::FRAMECAST_SET {

// Transformed inputs, zeros, values and gates of pairs, gated values; rows are whole vectors.
int64_t gated_scratch(const GatedLayer& l) { return (4 * PAIRS + 1 + 4 * PAIRS + 2 * PAIRS) * l.width; }

int64_t gated_pieces(const GatedLayer& l) {
  const int64_t rest = l.frames % (2 * l.dilation);
  const int64_t pairs = l.frames / (2 * l.dilation) * l.dilation + (rest < l.dilation ? rest : l.dilation);
  return (pairs + PAIRS - 1) / PAIRS;
}

void gated(const GatedLayer& l, int64_t piece, float* scratch) {
  const int64_t width = l.width, d = l.dilation;
  float *inputs = scratch, *zeros = inputs + 4 * PAIRS * width, *near = zeros + width;
  float *far = near + 2 * PAIRS * width, *values = far + 2 * PAIRS * width;
  for (int64_t c = 0; c < width; ++c) zeros[c] = 0.0f;
  const auto row = [&](int64_t t) { return t >= 0 && t < l.frames ? l.x + t * width : zeros; };
  int64_t pairs = 0, frames[2 * PAIRS];
  for (int64_t p = piece * PAIRS; p < (piece + 1) * PAIRS; ++p, ++pairs) {
    const int64_t t = p / d * 2 * d + p % d;
    if (t >= l.frames) break;
    const float *before = row(t - d), *own = row(t), *other = row(t + d), *after = row(t + 2 * d);
    float* to = inputs + pairs * width;
    for (int64_t c = 0; c < width; c += LANES) {
      const Vector a = load(before + c), b = load(own + c), e = load(other + c), f = load(after + c);
      store(to + c, b + e);
      store(to + PAIRS * width + c, e - b);
      store(to + 2 * PAIRS * width + c, a - e);
      store(to + 3 * PAIRS * width + c, f - b);
    }
    frames[pairs] = t;
  }
  const int64_t panel_weights = width * PANEL;
  const float* weight = l.weight;
  for (int64_t column = 0; column < 2 * width; column += PANEL, weight += 4 * panel_weights) {
    const float* bias = l.bias + column;
    float *at = near + column, *beside = far + column;
    const float* in = inputs;
    by_rows(pairs, Products<BOTH>{in, weight, bias, at, beside, width});
    in += PAIRS * width;
    by_rows(pairs, Products<SUM_AND_DIFFERENCE>{in, weight + panel_weights, bias, at, beside, width});
    in += PAIRS * width;
    by_rows(pairs, Products<FIRST>{in, weight + 2 * panel_weights, bias, at, beside, width});
    in += PAIRS * width;
    by_rows(pairs, Products<SECOND>{in, weight + 3 * panel_weights, bias, at, beside, width});
  }
  int64_t rows = 0;
  const auto gate = [&](const float* y, int64_t t) {
    for (int64_t c = 0; c < width; c += LANES)
      store(values + rows * width + c, load(y + c) / (1.0f + exp(-load(y + width + c))));
    frames[rows++] = t;
  };
  for (int64_t p = 0; p < pairs; ++p) gate(near + p * 2 * width, frames[p]);
  for (int64_t p = 0; p < pairs; ++p)
    if (frames[p] + d < l.frames) gate(far + p * 2 * width, frames[p] + d);
  const float* mix = l.mix;
  for (int64_t column = 0; column < width; column += PANEL, mix += panel_weights)
    by_rows(rows, Mixing{l, values, mix, frames, column});
}

}  // namespace framecast::FRAMECAST_SET
