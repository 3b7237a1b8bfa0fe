// exp, sigmoid and SiLU on vectors, exact to the last bits also where they are tiny.
#pragma once

#include "vectors.h"

namespace {

// e^x = 2^n e^f with whole n and f in [-ln 2 / 2, ln 2 / 2]; ln 2 in two parts, so that f stays exact for
// large x. Relative error below 1e-7; clamped to [2^-126, 2^126]; NaN stays NaN.
inline Vector exp(Vector x) {
  x = x < -87.336f ? all(-87.336f) : x;
  x = x > 87.336f ? all(87.336f) : x;
  const Vector rounder = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to whole numbers
  const Vector shifted = x * 1.44269504f + rounder;
  const Vector n = shifted - rounder;
  const Vector f = (x - n * 6.93145752e-1f) - n * 1.42860677e-6f;
  Vector p = all(1.381453988e-3f);
  p = p * f + 8.368745127e-3f;
  p = p * f + 4.166839079e-2f;
  p = p * f + 1.666652040e-1f;
  p = p * f + 4.999999343e-1f;
  p = p * f * f + f + 1.0f;
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(p) +
                                  (reinterpret_cast<Integers>(shifted) << 23));
}

// x / (1 + e^-x), relative error below 2e-7 for x > -87; below that it is a number smaller than 1e-37 |x|.
inline Vector silu(Vector x) { return x / (1.0f + exp(-x)); }

// d silu / dx = s + x s (1 - s), where s = 1 / (1 + e^-x) and 1 - s = s e^-x, which does not cancel.
inline Vector silu_slope(Vector x) {
  const Vector e = exp(-x), s = 1.0f / (1.0f + e);
  return s + x * s * (e * s);
}

}  // namespace
