// What the kernels of one instruction set offer to library.cpp.
//
// span_attention.cpp and shifted_linear.cpp are compiled once per instruction set, each time into its own
// namespace. Only plain data crosses this border, and those files use nothing of the C++ standard library: an
// inline function of it that is compiled for a newer processor could become the copy that the linker keeps
// for every processor.
#pragma once

#include <cstdint>

namespace framecast {

// Rows of a (rows, heads * width) matrix that attend: queries first_query + i * step to keys likewise.
struct Span {
  int64_t first_query, queries, first_key, keys, step;
};

enum Activation : int64_t { NONE = 0, GELU = 1, RELU = 2 };

struct Attention {
  const float *query, *key, *value;
  float* out;
  int64_t query_row, key_row, value_row, out_row;  // numbers from one row to the next
  int64_t heads, width;                            // of one head
  int64_t activation;                              // of the answer
};

// out[t] = activation(bias + sum_j weight_j x[t + shift_j]) + add[t] over the frames of one video.
struct Linear {
  const float* x;
  const float* weight;  // packed by panels of outputs: [panel][tap][depth][panel width]
  const float* bias;    // padded with zeros to whole panels
  const float* add;     // or null
  float* out;
  int64_t x_row, add_row, out_row;
  int64_t frames, depth, width, taps;
  const int64_t* shifts;
  int64_t activation;
};

struct Kernels {
  const char* name;
  int64_t panel;                                                // outputs of a packed weight panel
  int64_t (*attention_scratch)(const Attention&, const Span&);  // floats
  int64_t (*linear_scratch)(const Linear&);
  // Queries first .. last - 1 of a span, frames first .. last - 1 of a video.
  void (*attend)(const Attention&, const Span&, int64_t first, int64_t last, float* scratch);
  void (*linear)(const Linear&, int64_t first, int64_t last, float* scratch);
};

#define FRAMECAST_DECLARE(set)                                                     \
  namespace set {                                                                  \
  int64_t attention_scratch(const Attention&, const Span&);                        \
  void attend(const Attention&, const Span&, int64_t first, int64_t last, float*); \
  int64_t linear_scratch(const Linear&);                                           \
  void linear(const Linear&, int64_t first, int64_t last, float*);                 \
  extern const int64_t panel;                                                      \
  }

FRAMECAST_DECLARE(portable)
FRAMECAST_DECLARE(avx2)
FRAMECAST_DECLARE(avx512)

}  // namespace framecast
