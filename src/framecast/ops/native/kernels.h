// What the kernels of one instruction set offer to library.cpp.
//
// All files but library.cpp are compiled once per instruction set, each time into its own namespace. Only
// plain data crosses this border, and those files use nothing of the C++ standard library: an inline function
// of it that is compiled for a newer processor could become the copy that the linker keeps for every
// processor.
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

// out[t] = x[t] + shift + factor * ReLU(mix (value * sigmoid(gate)) + mix_bias) over the frames of one video, with
// value and gate a convolution of taps at t - dilation, t, t + dilation.
struct GatedLayer {
  const float* x;       // (frames, width), unbroken, like out
  const float* weight;  // of value, then gate, packed: [panel][Winograd's four][depth][panel width]
  const float* bias;    // (2 width)
  const float* mix;     // packed: [panel][depth][panel width]
  const float *mix_bias, *factor, *shift;
  float* out;
  int64_t frames, width, dilation;  // width: whole panels
};

// Depthwise convolution over time, and its gradients. A step sees `taps` rows, the last of which is its own
// (reverse: the first). A second direction, where there is one, is the opposite of the first.
struct Convolution {
  const float* x;       // (items, length, channels) with channels side by side
  const float* weight;  // (directions, taps, channels), the taps in the order of the rows
  const float* bias;    // (directions, channels) or null
  const float* grad;    // like the answer, for the gradients only
  float* out;           // (directions, items, length, channels); the gradient of x: (items, length, channels)
  int64_t x_item, x_row;
  int64_t items, length, channels, taps, directions;
  int64_t reverse, silu;  // flags
};

// (directions, videos, steps, channels) whose channels lie side by side, and how far apart the others do.
struct Rows {
  const float* at;
  int64_t direction, video, row;
};

constexpr int64_t SCAN_STEPS = 48;  // of a chunk: from one kept state to the next
constexpr int64_t SCAN_SLAB = 96;   // channels that share one set of sums over channels

// A selective scan of one direction, or of two of which the second walks from the end, and its gradients.
// Tensors without a Rows are unbroken; those that may be null say so.
struct Scan {
  Rows u, delta, z;             // z or null, without directions
  Rows B, C;                    // (directions, videos, steps, groups, states); fixed: like A
  int64_t B_group, C_group;     // numbers from one group to the next
  const float* A;               // (directions, channels, states)
  const float *D, *delta_bias;  // (directions, channels) or null
  const float* initial;         // (directions, videos, channels, states) or null
  float* out;                   // (videos, steps, channels)
  float* last;                  // (directions, videos, channels, states)
  float* kept;  // states before each chunk (directions, videos, chunks, states, channels), or null
  int64_t directions, videos, steps, channels, groups, states;
  int64_t softplus, reverse, fixed_B, fixed_C;  // flags; reverse is of the first direction
  // For the gradients only. Each slab of channels has sums of its own over its channels.
  Rows grad_out;                       // without directions
  const float* grad_last;              // like last, or null
  float *grad_u, *grad_delta;          // (directions, videos, steps, channels)
  float* grad_z;                       // (videos, steps, channels) or null
  float *grad_A, *grad_D, *grad_bias;  // (videos, directions, channels[, states])
  float *grad_B, *grad_C;              // (directions, videos, slabs, steps, states); fixed: like grad_A
  float* grad_initial;                 // like initial, never null
};

// How significant each patch of a sequence of rows is to its class token, the first row.
struct TokenScores {
  const float *key, *value;  // (rows, heads * width)
  const float* query;        // (sequences, heads * width) of the class tokens, scaled
  int64_t key_row, value_row;
  int64_t heads, width, prefix, slots;  // rows in front that are no patches; slots of patches
  const int64_t *first, *count;         // (sequences) first row, and number of rows
  float* scores;                        // (sequences, slots), -1 where there is no patch
};

// Sampled rows of each sequence: the prefix, then patches by ascending score.
struct TokenChoice {
  const float* scores;  // (sequences, slots)
  int64_t slots, prefix, points, paper;
  const int64_t* first;      // (sequences) first row
  const int64_t* from_zero;  // (sequences) flags, or null
  int64_t* rows;             // (sequences, prefix + slots)
  int64_t* kept;             // (sequences) how many of them
};

struct Kernels {
  const char* name;
  int64_t panel;                                                // outputs of a packed weight panel
  int64_t (*attention_scratch)(const Attention&, const Span&);  // floats
  int64_t (*linear_scratch)(const Linear&);
  // Queries first .. last - 1 of a span, frames first .. last - 1 of a video.
  void (*attend)(const Attention&, const Span&, int64_t first, int64_t last, float* scratch);
  void (*linear)(const Linear&, int64_t first, int64_t last, float* scratch);
  int64_t (*gated_pieces)(const GatedLayer&);
  int64_t (*gated_scratch)(const GatedLayer&);
  void (*gated)(const GatedLayer&, int64_t piece, float* scratch);
  // Steps first .. last - 1 of an item; sums (directions, taps + 1, channels) gather the gradients of weight
  // and bias.
  int64_t (*convolution_scratch)(const Convolution&);
  void (*convolve)(const Convolution&, int64_t item, int64_t first, int64_t last, float* scratch);
  void (*convolve_backward)(const Convolution&, int64_t item, int64_t first, int64_t last, float* sums,
                            float* scratch);
  // An item of a scan is a block of `wide` vectors of channels; of its gradients, a slab of channels.
  int64_t lanes;
  int64_t (*scan_items)(const Scan&, int64_t wide);
  int64_t (*scan_scratch)(const Scan&, int64_t wide);
  void (*scan)(const Scan&, int64_t wide, int64_t item, float* scratch);
  int64_t (*scan_backward_items)(const Scan&);
  int64_t (*scan_backward_scratch)(const Scan&);
  void (*scan_backward)(const Scan&, int64_t item, float* scratch);
  void (*exponentials)(const float* x, float* out, int64_t number);
  int64_t (*score_scratch)(const TokenScores&);
  void (*score)(const TokenScores&, int64_t unit, float* scratch);
  int64_t (*choice_scratch)(const TokenChoice&);
  void (*choose)(const TokenChoice&, int64_t unit, float* scratch);
};

#define FRAMECAST_DECLARE(set)                                                           \
  namespace set {                                                                        \
  int64_t attention_scratch(const Attention&, const Span&);                              \
  void attend(const Attention&, const Span&, int64_t first, int64_t last, float*);       \
  int64_t linear_scratch(const Linear&);                                                 \
  void linear(const Linear&, int64_t first, int64_t last, float*);                       \
  int64_t gated_pieces(const GatedLayer&);                                               \
  int64_t gated_scratch(const GatedLayer&);                                              \
  void gated(const GatedLayer&, int64_t, float*);                                        \
  int64_t convolution_scratch(const Convolution&);                                       \
  void convolve(const Convolution&, int64_t, int64_t, int64_t, float*);                  \
  void convolve_backward(const Convolution&, int64_t, int64_t, int64_t, float*, float*); \
  int64_t scan_items(const Scan&, int64_t);                                              \
  int64_t scan_scratch(const Scan&, int64_t);                                            \
  void scan(const Scan&, int64_t, int64_t, float*);                                      \
  int64_t scan_backward_items(const Scan&);                                              \
  int64_t scan_backward_scratch(const Scan&);                                            \
  void scan_backward(const Scan&, int64_t, float*);                                      \
  void exponentials(const float*, float*, int64_t);                                      \
  int64_t score_scratch(const TokenScores&);                                             \
  void score(const TokenScores&, int64_t, float*);                                       \
  int64_t choice_scratch(const TokenChoice&);                                            \
  void choose(const TokenChoice&, int64_t, float*);                                      \
  extern const int64_t panel, lanes;                                                     \
  }

FRAMECAST_DECLARE(portable)
FRAMECAST_DECLARE(avx2)
FRAMECAST_DECLARE(avx512)

}  // namespace framecast
