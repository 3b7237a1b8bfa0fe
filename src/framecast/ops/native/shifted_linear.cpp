// A linear map of each frame and of frames a fixed distance away, with bias, activation and residual in one
// pass.
//
// Outputs lie on lanes. The weights of one panel of outputs fit the first-level cache and are used for all
// frames of a piece before the next panel's turn; sums never leave the registers, so a convolution reads and
// writes each frame's outputs once, however many taps it has.

#include "kernels.h"
#include "vectors.h"

namespace {

using framecast::Linear;

template <int N>
struct Frames {
  const Linear& l;
  const float *weight, *bias;  // of this panel
  int64_t begin, column,
      columns;  // first frame of the piece; first output and number of outputs of this panel
  float* scratch;

  // Rows first .. first + R - 1 of x, zeros where there is no frame.
  template <int R>
  const float* rows(int64_t first, int64_t& row) const {
    if (first >= 0 && first + R <= l.frames) {
      row = l.x_row;
      return l.x + first * l.x_row;
    }
    row = l.depth;
    for (int r = 0; r < R; ++r)
      for (int64_t d = 0; d < l.depth; ++d) {
        const bool inside = first + r >= 0 && first + r < l.frames;
        scratch[r * l.depth + d] = inside ? l.x[(first + r) * l.x_row + d] : 0.0f;
      }
    return scratch;
  }

  template <int R>
  void run(int64_t offset) const {
    const int64_t first = begin + offset;
    Tile<R, N> tile;
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) tile.at[r][n] = load(bias + n * LANES);
    for (int64_t tap = 0; tap < l.taps; ++tap) {
      int64_t row;
      const float* x = rows<R>(first + l.shifts[tap], row);
      multiply_add(tile, x, row, 1, weight + tap * l.depth * PANEL, l.depth);
    }
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) finish(first + r, n, tile.at[r][n]);
  }

  void finish(int64_t frame, int n, Vector y) const {
    y = activate(y, l.activation);
    float* out = l.out + frame * l.out_row + column + n * LANES;
    const float* add = l.add ? l.add + frame * l.add_row + column + n * LANES : nullptr;
    if ((n + 1) * LANES <= columns) {
      store(out, add ? y + load(add) : y);
      return;
    }
    for (int64_t c = 0; c < columns - n * LANES; ++c) out[c] = add ? y[c] + add[c] : y[c];
  }
};

}  // namespace

namespace framecast::FRAMECAST_SET {

extern const int64_t panel = PANEL;

int64_t linear_scratch(const Linear& l) { return ROWS * l.depth; }

void linear(const Linear& l, int64_t first, int64_t last, float* scratch) {
  const float* weight = l.weight;
  for (int64_t column = 0; column < l.width; column += PANEL, weight += l.taps * l.depth * PANEL) {
    const int64_t columns = l.width - column < PANEL ? l.width - column : PANEL;
    if (columns > LANES)
      by_rows(last - first, Frames<2>{l, weight, l.bias + column, first, column, columns, scratch});
    else
      by_rows(last - first, Frames<1>{l, weight, l.bias + column, first, column, columns, scratch});
  }
}

}  // namespace framecast::FRAMECAST_SET
