// Vectors as wide as the instruction set that this file is compiled for, the matrix product that all kernels
// are made of, and the two functions that they need. GCC's vector extensions, which clang knows as well.
#pragma once

#include "kernels.h"

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 8;  // 16 of 32 registers hold sums
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 6;  // 12 of 16
#else
constexpr int LANES = 4, ROWS = 4;
#endif
constexpr int PANEL = 2 * LANES;

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Vector x) { *reinterpret_cast<Unaligned*>(to) = x; }
inline Vector all(float x) { return x - Vector{}; }
inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }

// to[c][i] = from[i][c] of a 4 x 4 block.
inline void transpose4(const float* from, int64_t from_row, float* to, int64_t to_row) {
  typedef float Four __attribute__((vector_size(16)));
  typedef float Anywhere __attribute__((vector_size(16), aligned(4), may_alias));
#if defined(__clang__)
#define FRAMECAST_MIX(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
  typedef int32_t Order __attribute__((vector_size(16)));
#define FRAMECAST_MIX(a, b, i, j, k, l) __builtin_shuffle(a, b, Order{i, j, k, l})
#endif
  const Four a = *reinterpret_cast<const Anywhere*>(from);
  const Four b = *reinterpret_cast<const Anywhere*>(from + from_row);
  const Four c = *reinterpret_cast<const Anywhere*>(from + 2 * from_row);
  const Four d = *reinterpret_cast<const Anywhere*>(from + 3 * from_row);
  const Four ab = FRAMECAST_MIX(a, b, 0, 4, 1, 5), AB = FRAMECAST_MIX(a, b, 2, 6, 3, 7);
  const Four cd = FRAMECAST_MIX(c, d, 0, 4, 1, 5), CD = FRAMECAST_MIX(c, d, 2, 6, 3, 7);
  *reinterpret_cast<Anywhere*>(to) = FRAMECAST_MIX(ab, cd, 0, 1, 4, 5);
  *reinterpret_cast<Anywhere*>(to + to_row) = FRAMECAST_MIX(ab, cd, 2, 3, 6, 7);
  *reinterpret_cast<Anywhere*>(to + 2 * to_row) = FRAMECAST_MIX(AB, CD, 0, 1, 4, 5);
  *reinterpret_cast<Anywhere*>(to + 3 * to_row) = FRAMECAST_MIX(AB, CD, 2, 3, 6, 7);
}

// to[c][i] = from[i][c] for i < rows, c < columns.
inline void transpose(const float* from, int64_t from_row, int64_t rows, int64_t columns, float* to,
                      int64_t to_row) {
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int64_t i = 0; i < rows; ++i) {
    const bool inside = i < whole_rows;
    if (inside && i % 4 == 0)
      for (int64_t c = 0; c < whole_columns; c += 4)
        transpose4(from + i * from_row + c, from_row, to + c * to_row + i, to_row);
    for (int64_t c = inside ? whole_columns : 0; c < columns; ++c)
      to[c * to_row + i] = from[i * from_row + c];
  }
}

// R x N vectors of a product; small enough to stay in registers.
template <int R, int N>
struct Tile {
  Vector at[R][N];
};

// tile[r][lane] += sum_d left[r * row + d * step] * right[d * PANEL + lane].
template <int R, int N>
inline void multiply_add(Tile<R, N>& tile, const float* left, int64_t row, int64_t step, const float* right,
                         int64_t depth) {
  for (int64_t d = 0; d < depth; ++d) {
    Vector lanes[N];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) lanes[n] = load(right + d * PANEL + n * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const float factor = left[r * row + d * step];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) tile.at[r][n] += factor * lanes[n];
    }
  }
}

// Calls work.run<R>(first) for rows first .. first + R - 1 until all rows are done.
template <class Work>
inline void by_rows(int64_t rows, const Work& work) {
  int64_t first = 0;
  for (; first + ROWS <= rows; first += ROWS) work.template run<ROWS>(first);
  for (; first + 4 <= rows; first += 4) work.template run<4>(first);
  for (; first < rows; ++first) work.template run<1>(first);
}

// 2^x for x <= 0: 2^round(x) through the exponent bits, times a polynomial for the rest in [-1/2, 1/2].
// Relative error below 1e-7; what is less than 2^-126 gives 2^-126; NaN stays NaN.
inline Vector exp2(Vector x) {
  x = x < -126.0f ? all(-126.0f) : x;
  const Vector rounder = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to whole numbers
  const Vector shifted = x + rounder;
  const Vector f = x - (shifted - rounder);
  Vector p = all(1.5345812e-4f);
  p = p * f + 1.3399931e-3f;
  p = p * f + 9.6184890e-3f;
  p = p * f + 5.5503288e-2f;
  p = p * f + 2.4022647e-1f;
  p = p * f + 6.9314721e-1f;
  p = p * f + 1.0f;
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(p) +
                                  (reinterpret_cast<Integers>(shifted) << 23));
}

// x * Phi(x) with Phi(x) = 1/2 + x P(x^2), P fitted over |x| <= 5.2; beyond, Phi is 0 or 1.
// Absolute error below 6e-7.
inline Vector gelu(Vector x) {
  const Vector t = x * x * 7.3964497e-2f - 1.0f;  // x^2 from [0, 5.2^2] to [-1, 1]
  Vector p = all(-3.8824318e-4f);
  p = p * t + 1.1886895e-3f;
  p = p * t - 1.4687522e-3f;
  p = p * t + 2.0051710e-3f;
  p = p * t - 4.5423345e-3f;
  p = p * t + 8.3651049e-3f;
  p = p * t - 1.2619650e-2f;
  p = p * t + 1.8038770e-2f;
  p = p * t - 2.4698842e-2f;
  p = p * t + 3.1973917e-2f;
  p = p * t - 3.9931986e-2f;
  p = p * t + 5.0025616e-2f;
  p = p * t - 6.7743622e-2f;
  p = p * t + 1.3594998e-1f;
  const Vector inside = x * (x * p + 0.5f);
  return x > 5.2f ? x : x < -5.2f ? Vector{} : inside;
}

inline Vector activate(Vector x, int64_t activation) {
  if (activation == framecast::GELU) return gelu(x);
  if (activation == framecast::RELU) return x < 0.0f ? Vector{} : x;
  return x;
}

}  // namespace
