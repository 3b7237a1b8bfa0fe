// The plain C interface that Python loads, the choice of the instruction set, and the split over threads.

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels.h"

namespace framecast {
namespace {

enum Status : int { DONE = 0, OUT_OF_RANGE = 1, OUT_OF_MEMORY = 2 };

#define FRAMECAST_KERNELS(set)                                                                      \
  Kernels {                                                                                         \
    #set, set::panel, set::attention_scratch, set::linear_scratch, set::attend, set::linear,        \
        set::gated_pieces, set::gated_scratch, set::gated, set::convolution_scratch, set::convolve, \
        set::convolve_backward, set::lanes, set::scan_items, set::scan_scratch, set::scan,          \
        set::scan_backward_items, set::scan_backward_scratch, set::scan_backward, set::exponentials, \
        set::score_scratch, set::score, set::choice_scratch, set::choose \
  }

// Best first.
const Kernels SETS[] = {
#if defined(__x86_64__) && defined(FRAMECAST_AVX512)
    FRAMECAST_KERNELS(avx512),
#endif
#if defined(__x86_64__) && defined(FRAMECAST_AVX2)
    FRAMECAST_KERNELS(avx2),
#endif
    FRAMECAST_KERNELS(portable),
};

bool supported(const Kernels& set) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (!std::strcmp(set.name, "avx2")) return avx2;
  if (!std::strcmp(set.name, "avx512"))
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
#endif
  return !std::strcmp(set.name, "portable");
}

const Kernels* best() { return std::find_if(std::begin(SETS), std::end(SETS), supported); }

const Kernels* kernels = best();

// Runs task(data) on up to so many threads at once and waits for them. On PyTorch's own OpenMP threads where
// the process has them: threads beside those would fight them for the cores, since they spin for a while
// after work.
void run_on(int64_t threads, void (*task)(void*), void* data) {
  using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
  static const auto parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  if (threads == 1) return task(data);
  if (parallel) return parallel(task, data, static_cast<unsigned>(threads), 0);
  std::vector<std::thread> others;
  others.reserve(threads - 1);
  try {
    for (int64_t other = 1; other < threads; ++other) others.emplace_back(task, data);
  } catch (const std::system_error&) {
    // The system gives no more threads: those that run do the whole work.
  }
  task(data);
  for (auto& other : others) other.join();
}

struct Release {
  void operator()(float* numbers) const { ::operator delete[](numbers, std::align_val_t{64}); }
};

// Numbers that begin with a cache line, so that no vector of the widest kind lies in two.
std::unique_ptr<float[], Release> aligned(int64_t number) {
  return std::unique_ptr<float[], Release>(new (std::align_val_t{64}) float[number]);
}

// work(item, scratch) for every item, each done by whichever thread is free.
template <class Work>
void share(int64_t items, int64_t threads, int64_t scratch, const Work& work) {
  threads = std::max<int64_t>(1, std::min(threads, items));
  scratch = (scratch + 15) / 16 * 16;  // whole cache lines
  const auto memory = aligned(threads * scratch);
  std::atomic<int64_t> next_thread{0}, next_item{0};
  auto task = [&] {
    float* const mine = memory.get() + next_thread.fetch_add(1) * scratch;
    for (int64_t item; (item = next_item.fetch_add(1)) < items;) work(item, mine);
  };
  run_on(threads, [](void* data) { (*static_cast<decltype(task)*>(data))(); }, &task);
}

// A thread must save more than it costs: 4 million multiplications take about 0.1 ms.
int64_t worthwhile(int64_t threads, double multiplications) {
  return std::min<int64_t>(threads, 1 + static_cast<int64_t>(multiplications / 4e6));
}

// (directions, channels, taps) as (directions, taps, channels), for a reversed direction the taps mirrored:
// then they lie in the order of the rows that a step sees.
std::unique_ptr<float[], Release> rows_of_taps(const Convolution& k, const float* weight) {
  auto packed = aligned(k.directions * k.taps * k.channels);
  for (int64_t d = 0; d < k.directions; ++d)
    for (int64_t tap = 0; tap < k.taps; ++tap) {
      const int64_t from = k.reverse != (d == 1) ? k.taps - 1 - tap : tap;
      for (int64_t c = 0; c < k.channels; ++c)
        packed[(d * k.taps + tap) * k.channels + c] = weight[(d * k.channels + c) * k.taps + from];
    }
  return packed;
}

double state_updates(const Scan& s) {
  return static_cast<double>(s.directions * s.videos * s.steps) * static_cast<double>(s.channels * s.states);
}

bool inside(int64_t first, int64_t count, int64_t step, int64_t rows) {
  return count >= 0 && first >= 0 && (count == 0 || (first < rows && (rows - 1 - first) / step >= count - 1));
}

}  // namespace
}  // namespace framecast

using namespace framecast;

#pragma GCC visibility push(default)
extern "C" {

// What the kernels use: "portable", "avx2" or "avx512".
const char* framecast_instruction_set() { return kernels->name; }

// Use another instruction set than the best; 0 where the library or the processor has none of that name.
int framecast_choose(const char* name) {
  for (const Kernels& set : SETS)
    if (!std::strcmp(set.name, name) && supported(set)) return kernels = &set, 1;
  return 0;
}

// query, key, value, out: (rows, heads * width); spans: (number, 5) as in struct Span.
int framecast_span_attention(const float* query, int64_t query_row, const float* key, int64_t key_row,
                             const float* value, int64_t value_row, float* out, int64_t out_row, int64_t rows,
                             int64_t heads, int64_t width, const Span* spans, int64_t number,
                             int64_t activation, int64_t threads) try {
  constexpr int64_t QUERIES = 256;  // of one piece: many to gather keys and values for, few enough to share
  struct Piece {
    const Span* span;
    int64_t first, last;
  };
  const Kernels& k = *kernels;
  const Attention attention{query,     key,     value, out,   query_row, key_row,
                            value_row, out_row, heads, width, activation};
  std::vector<Piece> pieces;
  double pairs = 0.0;
  int64_t scratch = 0;
  for (const Span* span = spans; span != spans + number; ++span) {
    if (span->step < 1 || span->keys < 1 || !inside(span->first_query, span->queries, span->step, rows) ||
        !inside(span->first_key, span->keys, span->step, rows))
      return OUT_OF_RANGE;
    pairs += static_cast<double>(span->queries) * static_cast<double>(span->keys);
    scratch = std::max(scratch, k.attention_scratch(attention, *span));
    for (int64_t first = 0; first < span->queries; first += QUERIES)
      pieces.push_back({span, first, std::min(first + QUERIES, span->queries)});
  }
  threads = worthwhile(threads, 2.0 * pairs * static_cast<double>(heads * width));
  share(static_cast<int64_t>(pieces.size()), threads, scratch, [&](int64_t item, float* memory) {
    k.attend(attention, *pieces[item].span, pieces[item].first, pieces[item].last, memory);
  });
  return DONE;
} catch (const std::bad_alloc&) {
  return OUT_OF_MEMORY;
}

// x: (videos, frames, depth), weight: (width, depth, taps), bias: (width) or null, add: like out or null,
// out: (videos, frames, width); the videos of a tensor lie frames * row numbers apart.
int framecast_shifted_linear(const float* x, int64_t x_row, const float* weight, const float* bias,
                             const float* add, int64_t add_row, float* out, int64_t out_row, int64_t videos,
                             int64_t frames, int64_t depth, int64_t width, int64_t taps,
                             const int64_t* shifts, int64_t activation, int64_t threads) try {
  constexpr int64_t FRAMES = 128;  // of one piece, so that their rows stay in cache from panel to panel
  const Kernels& k = *kernels;
  const int64_t columns = (width + k.panel - 1) / k.panel * k.panel;
  const auto packed = aligned(columns * (taps * depth + 1));
  std::fill_n(packed.get(), columns * (taps * depth + 1), 0.0f);
  float* packed_bias = packed.get() + columns * taps * depth;
  for (int64_t e = 0; e < width; ++e) {
    float* to = packed.get() + e / k.panel * taps * depth * k.panel + e % k.panel;
    for (int64_t d = 0; d < depth; ++d)
      for (int64_t tap = 0; tap < taps; ++tap)
        to[(tap * depth + d) * k.panel] = weight[(e * depth + d) * taps + tap];
    packed_bias[e] = bias ? bias[e] : 0.0f;
  }
  const Linear linear{x,       packed.get(), packed_bias, add,   out,  x_row,  add_row,
                      out_row, frames,       depth,       width, taps, shifts, activation};
  const int64_t pieces = (frames + FRAMES - 1) / FRAMES;
  const double weights = static_cast<double>(taps * depth * width);
  threads = worthwhile(threads, weights * static_cast<double>(videos * frames));
  share(videos * pieces, threads, k.linear_scratch(linear), [&](int64_t item, float* memory) {
    const int64_t video = item / pieces, first = item % pieces * FRAMES;
    Linear one = linear;
    one.x += video * frames * x_row;
    one.out += video * frames * out_row;
    if (add) one.add += video * frames * add_row;
    k.linear(one, first, std::min(first + FRAMES, frames), memory);
  });
  return DONE;
} catch (const std::bad_alloc&) {
  return OUT_OF_MEMORY;
}

// x, out: (videos, frames, width), not the same; weight: (2 width, width, 3), mix: (width, width); bias and the
// others likewise. width: a multiple of 32.
int framecast_gated_layer(const float* x, const float* weight, const float* bias, const float* mix,
                          const float* mix_bias, const float* factor, const float* shift, float* out,
                          int64_t videos, int64_t frames, int64_t width, int64_t dilation,
                          int64_t threads) try {
  const Kernels& k = *kernels;
  const auto packed = aligned(9 * width * width);
  for (int64_t e = 0; e < 2 * width; ++e) {
    float* to = packed.get() + e / k.panel * 4 * width * k.panel + e % k.panel;
    for (int64_t d = 0; d < width; ++d, to += k.panel) {
      const float* g = weight + (e * width + d) * 3;
      to[0] = 0.5f * (g[0] + g[1] + g[2]);
      to[width * k.panel] = 0.5f * (g[0] - g[1] + g[2]);
      to[2 * width * k.panel] = g[0];
      to[3 * width * k.panel] = g[2];
    }
  }
  float* packed_mix = packed.get() + 8 * width * width;
  for (int64_t e = 0; e < width; ++e)
    for (int64_t d = 0; d < width; ++d)
      packed_mix[e / k.panel * width * k.panel + d * k.panel + e % k.panel] = mix[e * width + d];
  const GatedLayer layer{x,      packed.get(), bias, packed_mix, mix_bias, factor,
                         shift, out,          frames, width,     dilation};
  const int64_t pieces = k.gated_pieces(layer);
  threads = worthwhile(threads, 5.0 * static_cast<double>(videos * frames) * static_cast<double>(width * width));
  share(videos * pieces, threads, k.gated_scratch(layer), [&](int64_t item, float* memory) {
    GatedLayer one = layer;
    one.x += item / pieces * frames * width;
    one.out += item / pieces * frames * width;
    k.gated(one, item % pieces, memory);
  });
  return DONE;
} catch (const std::bad_alloc&) {
  return OUT_OF_MEMORY;
}

// x: (items, length, channels), weight: (directions, channels, taps), bias: (directions, channels) or null,
// out: (directions, items, length, channels).
int framecast_causal_conv1d(const float* x, int64_t x_item, int64_t x_row, const float* weight,
                            const float* bias, float* out, int64_t items, int64_t length, int64_t channels,
                            int64_t taps, int64_t directions, int64_t reverse, int64_t silu,
                            int64_t threads) try {
  constexpr int64_t STEPS = 64;  // of one piece
  const Kernels& k = *kernels;
  Convolution convolution{x,     nullptr, bias,     nullptr, out,        x_item,  x_row,
                          items, length,  channels, taps,    directions, reverse, silu};
  const auto packed = rows_of_taps(convolution, weight);
  convolution.weight = packed.get();
  const int64_t pieces = (length + STEPS - 1) / STEPS;
  const double outputs = static_cast<double>(directions * items * length * channels);
  threads = worthwhile(threads, outputs * static_cast<double>(taps + 12));
  share(items * pieces, threads, k.convolution_scratch(convolution), [&](int64_t piece, float* memory) {
    const int64_t first = piece % pieces * STEPS;
    k.convolve(convolution, piece / pieces, first, std::min(first + STEPS, length), memory);
  });
  return DONE;
} catch (const std::bad_alloc&) {
  return OUT_OF_MEMORY;
}

// grad: like the answer; grad_x: (items, length, channels), grad_weight, grad_bias: like weight and bias.
int framecast_causal_conv1d_backward(const float* x, int64_t x_item, int64_t x_row, const float* weight,
                                     const float* bias, const float* grad, float* grad_x, float* grad_weight,
                                     float* grad_bias, int64_t items, int64_t length, int64_t channels,
                                     int64_t taps, int64_t directions, int64_t reverse, int64_t silu,
                                     int64_t threads) try {
  // Each part of the steps has its own sums. Their number does not depend on that of threads, so neither does
  // the answer.
  constexpr int64_t PARTS = 64, STEPS = 64;
  const Kernels& k = *kernels;
  Convolution convolution{x,     nullptr, bias,     grad, grad_x,     x_item,  x_row,
                          items, length,  channels, taps, directions, reverse, silu};
  const auto packed = rows_of_taps(convolution, weight);
  convolution.weight = packed.get();
  const int64_t all = items * length, part = std::max(STEPS, (all + PARTS - 1) / PARTS);
  const int64_t parts = (all + part - 1) / part, size = directions * (taps + 1) * channels;
  const auto sums = aligned(parts * size);
  std::fill_n(sums.get(), parts * size, 0.0f);
  threads = worthwhile(threads, static_cast<double>(directions * all * channels * (3 * taps + 14)));
  share(parts, threads, k.convolution_scratch(convolution), [&](int64_t index, float* memory) {
    const int64_t end = std::min((index + 1) * part, all);
    for (int64_t at = index * part; at < end;) {
      const int64_t item = at / length, last = std::min(end - item * length, length);
      k.convolve_backward(convolution, item, at - item * length, last, sums.get() + index * size, memory);
      at = item * length + last;
    }
  });
  for (int64_t index = 1; index < parts; ++index)
    for (int64_t i = 0; i < size; ++i) sums[i] += sums[index * size + i];
  for (int64_t d = 0; d < directions; ++d)
    for (int64_t tap = 0; tap <= taps; ++tap) {
      const float* const from = sums.get() + (d * (taps + 1) + tap) * channels;
      const int64_t to = reverse != (d == 1) ? taps - 1 - tap : tap;
      for (int64_t c = 0; c < channels; ++c) {
        if (tap < taps) grad_weight[(d * channels + c) * taps + to] = from[c];
        if (tap == taps && grad_bias) grad_bias[d * channels + c] = from[c];
      }
    }
  return DONE;
} catch (const std::bad_alloc&) {
  return OUT_OF_MEMORY;
}

int framecast_selective_scan(const Scan* scan, int64_t threads) try {
  const Kernels& k = *kernels;
  threads = worthwhile(threads, 20.0 * state_updates(*scan));
  // Wide blocks read whole cache lines of few pages; with many threads they must be narrower to be shared.
  int64_t wide = 128 / k.lanes;
  while (threads > 1 && wide > 1 && k.scan_items(*scan, wide) < 4 * threads) wide /= 2;
  share(k.scan_items(*scan, wide), threads, k.scan_scratch(*scan, wide),
        [&](int64_t item, float* memory) { k.scan(*scan, wide, item, memory); });
  return DONE;
} catch (const std::bad_alloc&) {
  return OUT_OF_MEMORY;
}

int framecast_selective_scan_backward(const Scan* scan, int64_t threads) try {
  const Kernels& k = *kernels;
  threads = worthwhile(threads, 60.0 * state_updates(*scan));
  share(k.scan_backward_items(*scan), threads, k.scan_backward_scratch(*scan),
        [&](int64_t item, float* memory) { k.scan_backward(*scan, item, memory); });
  return DONE;
} catch (const std::bad_alloc&) {
  return OUT_OF_MEMORY;
}

// 2^x of `number` numbers, `rounds` times over: the least that a scan with as many states can take.
int framecast_exponentials(const float* x, float* out, int64_t number, int64_t rounds, int64_t) {
  for (int64_t round = 0; round < rounds; ++round) kernels->exponentials(x, out, number);
  return DONE;
}

int framecast_token_scores(const TokenScores* scores, int64_t units, int64_t threads) try {
  const Kernels& k = *kernels;
  const double rows = static_cast<double>(units * (scores->prefix + scores->slots));
  threads = worthwhile(threads, 2.0 * rows * static_cast<double>(scores->heads * scores->width));
  share(units, threads, k.score_scratch(*scores),
        [&](int64_t unit, float* memory) { k.score(*scores, unit, memory); });
  return DONE;
} catch (const std::bad_alloc&) {
  return OUT_OF_MEMORY;
}

// The kept rows of all sequences stand together at the beginning of `rows` afterwards.
int framecast_sampled_tokens(const TokenChoice* choice, int64_t units, int64_t threads) try {
  const Kernels& k = *kernels;
  threads = worthwhile(threads, 100.0 * static_cast<double>(units * choice->slots));
  share(units, threads, k.choice_scratch(*choice),
        [&](int64_t unit, float* memory) { k.choose(*choice, unit, memory); });
  int64_t* to = choice->rows;
  for (int64_t unit = 0; unit < units; ++unit) {
    const int64_t* from = choice->rows + unit * (choice->prefix + choice->slots);
    to = std::copy(from, from + choice->kept[unit], to);
  }
  return DONE;
} catch (const std::bad_alloc&) {
  return OUT_OF_MEMORY;
}

}  // extern "C"
#pragma GCC visibility pop
