// Attention over spans of rows, without ever storing a whole score matrix.
//
// A tile holds as many queries as two vectors have lanes, one query per lane, so that maximum, exponential
// and sum run over lanes without ever crossing them. Both products then have the same form:
// scores[key][query] and out[channel][query] add up numbers of a key or a value, each times a vector of
// queries. Keys come in blocks that stay in the first-level cache together with their scores; a later block
// with larger scores fades what the earlier ones have added up (Milakov, Gimelshein 2018,
// https://arxiv.org/abs/1805.02867).

#include "kernels.h"
#include "vectors.h"

namespace {

constexpr int64_t BLOCK = 64;  // keys

struct Scores {
  const float *keys, *queries;  // (keys, width), (width, PANEL)
  int64_t width;
  float* scores;  // (keys, PANEL)
  Vector* largest;

  template <int R>
  void run(int64_t first) const {
    Tile<R, 2> tile{};
    multiply_add(tile, keys + first * width, width, 1, queries, width);
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < 2; ++n) {
        store(scores + (first + r) * PANEL + n * LANES, tile.at[r][n]);
        largest[n] = larger(tile.at[r][n], largest[n]);
      }
  }
};

struct Weighted {
  const float *values, *weights;  // (keys, width), (keys, PANEL)
  int64_t width, keys;
  float* out;  // (width, PANEL)
  const Vector* fade;

  template <int R>
  void run(int64_t first) const {
    Tile<R, 2> tile;
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < 2; ++n) tile.at[r][n] = fade[n] * load(out + (first + r) * PANEL + n * LANES);
    multiply_add(tile, values + first, 1, width, weights, keys);
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < 2; ++n) store(out + (first + r) * PANEL + n * LANES, tile.at[r][n]);
  }
};

// Rows that lie `row` numbers apart, scaled and put together: far apart they would share few cache lines.
void gather(const float* from, int64_t row, int64_t rows, int64_t width, float scale, float* to) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < width; ++c) to[i * width + c] = scale * from[i * row + c];
}

// One tile of up to PANEL queries of one head against all its keys, which come scaled by log2(e) /
// sqrt(width).
void attend_tile(const float* query, int64_t query_row, float* out, int64_t out_row, int64_t queries,
                 const float* keys, const float* values, int64_t count, int64_t width, int64_t activation,
                 float* scratch) {
  float* q = scratch;  // (width, PANEL)
  float* sums = q + width * PANEL;
  float* scores = sums + width * PANEL;  // (BLOCK, PANEL)
  for (int64_t c = 0; c < width; ++c)
    for (int64_t i = queries; i < PANEL; ++i) q[c * PANEL + i] = 0.0f;
  transpose(query, query_row, queries, width, q, PANEL);
  for (int64_t i = 0; i < width * PANEL; ++i) sums[i] = 0.0f;

  Vector largest[2] = {all(-__builtin_inff()), all(-__builtin_inff())}, total[2] = {};
  for (int64_t first = 0; first < count; first += BLOCK) {
    const int64_t block = count - first < BLOCK ? count - first : BLOCK;
    const Vector before[2] = {largest[0], largest[1]};
    by_rows(block, Scores{keys + first * width, q, width, scores, largest});
    Vector fade[2];
    for (int n = 0; n < 2; ++n) {
      fade[n] = exp2(before[n] - largest[n]);
      total[n] *= fade[n];
    }
    for (int64_t i = 0; i < block; ++i)
      for (int n = 0; n < 2; ++n) {
        const Vector weight = exp2(load(scores + i * PANEL + n * LANES) - largest[n]);
        store(scores + i * PANEL + n * LANES, weight);
        total[n] += weight;
      }
    by_rows(width, Weighted{values + first * width, scores, width, block, sums, fade});
  }

  for (int64_t c = 0; c < width; ++c)
    for (int n = 0; n < 2; ++n) {
      float* at = sums + c * PANEL + n * LANES;
      store(at, activate(load(at) / total[n], activation));
    }
  transpose(sums, PANEL, width, queries, out, out_row);
}

}  // namespace

namespace framecast::FRAMECAST_SET {

int64_t attention_scratch(const Attention& a, const Span& span) {
  return 2 * a.width * PANEL + BLOCK * PANEL + 2 * span.keys * a.width;
}

void attend(const Attention& a, const Span& span, int64_t first, int64_t last, float* scratch) {
  float* const keys = scratch + 2 * a.width * PANEL + BLOCK * PANEL;
  float* const values = keys + span.keys * a.width;
  const float log2_e = 1.44269504f, scale = log2_e / __builtin_sqrtf(static_cast<float>(a.width));
  for (int64_t head = 0; head < a.heads; ++head) {
    const int64_t channel = head * a.width;
    const float* key = a.key + span.first_key * a.key_row + channel;
    const float* value = a.value + span.first_key * a.value_row + channel;
    gather(key, span.step * a.key_row, span.keys, a.width, scale, keys);
    gather(value, span.step * a.value_row, span.keys, a.width, 1.0f, values);
    for (int64_t i = first; i < last; i += PANEL) {
      const int64_t row = span.first_query + i * span.step, queries = last - i < PANEL ? last - i : PANEL;
      const float* query = a.query + row * a.query_row + channel;
      float* out = a.out + row * a.out_row + channel;
      attend_tile(query, span.step * a.query_row, out, span.step * a.out_row, queries, keys, values,
                  span.keys, a.width, a.activation, scratch);
    }
  }
}

}  // namespace framecast::FRAMECAST_SET
