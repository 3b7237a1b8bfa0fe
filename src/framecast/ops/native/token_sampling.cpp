// Scores of tokens, and which of them are sampled; `nn/token_sampling.py` is the definition.

#include "kernels.h"
#include "vectors.h"

namespace {

int64_t whole(int64_t number) { return (number + LANES - 1) / LANES * LANES; }

float total(Vector x) {
  float sum = 0.0f;
  for (int i = 0; i < LANES; ++i) sum += x[i];
  return sum;
}

float product(const float* a, const float* b, int64_t number) {
  Vector sum{};
  int64_t i = 0;
  for (; i + LANES <= number; i += LANES) sum += load(a + i) * load(b + i);
  float rest = total(sum);
  for (; i < number; ++i) rest += a[i] * b[i];
  return rest;
}

// Adds one head's share of attention of each row: softmax over the numbers (count), which are filled up to
// whole vectors here.
void add_softmax(float* logits, int64_t count, float* shares) {
  float largest = logits[0];
  for (int64_t j = 1; j < count; ++j) largest = logits[j] > largest ? logits[j] : largest;
  for (int64_t j = count; j < whole(count); ++j) logits[j] = -__builtin_inff();
  Vector sum{};
  for (int64_t j = 0; j < count; j += LANES) {
    Vector weight = exp2((load(logits + j) - largest) * 1.44269504f);
    for (int64_t i = count - j; i < LANES; ++i) weight[i] = 0.0f;
    store(logits + j, weight);
    sum += weight;
  }
  const float all_of_them = total(sum);
  for (int64_t j = 0; j < count; j += LANES) store(shares + j, load(shares + j) + load(logits + j) / all_of_them);
}

bool comes_first(float a, float b) { return a < b || (b != b && a == a); }  // NaN last

// order: the numbers 0 .. count - 1 by ascending key, equal ones as they stand; `other` is room for as many.
const int32_t* sort(const float* keys, int64_t count, int32_t* order, int32_t* other) {
  for (int64_t i = 0; i < count; ++i) order[i] = static_cast<int32_t>(i);
  for (int64_t run = 1; run < count; run *= 2) {
    for (int64_t begin = 0; begin < count; begin += 2 * run) {
      const int64_t middle = begin + run < count ? begin + run : count;
      const int64_t end = begin + 2 * run < count ? begin + 2 * run : count;
      int64_t left = begin, right = middle;
      for (int64_t to = begin; to < end; ++to) {
        const bool take_right =
            left == middle || (right < end && comes_first(keys[order[right]], keys[order[left]]));
        other[to] = order[take_right ? right++ : left++];
      }
    }
    int32_t* const swapped = order;
    order = other;
    other = swapped;
  }
  return order;
}

}  // namespace

namespace framecast::FRAMECAST_SET {

int64_t score_scratch(const TokenScores& s) { return 2 * whole(s.prefix + s.slots); }

void score(const TokenScores& s, int64_t unit, float* scratch) {
  const int64_t count = s.count[unit], patches = count - s.prefix, width = s.heads * s.width;
  const float* const key = s.key + s.first[unit] * s.key_row;
  const float* const value = s.value + s.first[unit] * s.value_row;
  const float* const query = s.query + unit * width;
  float *const logits = scratch, *const shares = scratch + whole(s.prefix + s.slots);
  float* const scores = s.scores + unit * s.slots;
  for (int64_t j = 0; j < whole(count); ++j) shares[j] = 0.0f;
  for (int64_t head = 0; head < s.heads; ++head) {
    const int64_t channel = head * s.width;
    for (int64_t j = 0; j < count; ++j)
      logits[j] = product(key + j * s.key_row + channel, query + channel, s.width);
    add_softmax(logits, count, shares);
  }
  float sum = 0.0f;
  for (int64_t j = 0; j < patches; ++j) {
    const float* const row = value + (s.prefix + j) * s.value_row;
    scores[j] = shares[s.prefix + j] * __builtin_sqrtf(product(row, row, width));
    sum += scores[j];
  }
  for (int64_t j = 0; j < patches; ++j) scores[j] /= sum;
  for (int64_t j = patches; j < s.slots; ++j) scores[j] = -1.0f;
}

int64_t choice_scratch(const TokenChoice& c) { return 4 * c.slots; }

void choose(const TokenChoice& c, int64_t unit, float* scratch) {
  const float* const scores = c.scores + unit * c.slots;
  float *const curve = scratch, *const steps = scratch + c.slots;
  int32_t* const room = reinterpret_cast<int32_t*>(scratch + 2 * c.slots);
  const int32_t* const order = sort(scores, c.slots, room, room + c.slots);
  int64_t* const rows = c.rows + unit * (c.prefix + c.slots);
  int64_t kept = 0;
  for (; kept < c.prefix; ++kept) rows[kept] = c.first[unit] + kept;

  int64_t dead = 0;
  while (dead < c.slots && scores[order[dead]] < 0.0f) ++dead;
  double sum = 0.0;
  for (int64_t i = dead; i < c.slots; ++i) {
    sum += scores[order[i]];
    curve[i] = static_cast<float>(sum);
  }
  const int64_t candidates = c.slots - c.points > dead ? c.slots - c.points : dead;
  const bool own_origin = !c.paper && !(c.from_zero && c.from_zero[unit]);
  const float origin = own_origin && dead < c.slots ? curve[dead] : 0.0f;
  const float height = dead < c.slots ? curve[c.slots - 1] - origin : 0.0f;
  if (!(height > 0.0f) || height == __builtin_inff()) {
    for (int64_t i = candidates; i < c.slots; ++i) rows[kept++] = c.first[unit] + c.prefix + order[i];
    c.kept[unit] = kept;
    return;
  }
  for (int64_t i = dead; i < c.slots; ++i) curve[i] = (curve[i] - origin) / height;
  for (int64_t i = dead; i + 1 < c.slots; ++i) steps[i] = curve[i + 1] - (curve[i + 1] - curve[i]) * 0.5f;

  float lowest = 1.0f;
  for (int64_t i = dead; i < c.slots; ++i)
    if (curve[i] > 0.0f) {
      lowest = curve[i];
      break;
    }
  int64_t place = dead, last = -1;
  for (int64_t k = 0; k < c.points; ++k) {
    const float at = c.paper ? (k + 0.5f) / c.points : k / static_cast<float>(c.points > 1 ? c.points - 1 : 1);
    const float y = c.paper ? at : lowest + (1.0f - lowest) * at;
    while (place + 1 < c.slots && steps[place] < y) ++place;
    int64_t picked = place;
    while (picked > dead && curve[picked - 1] == curve[picked]) --picked;
    picked = picked > candidates ? picked : candidates;
    if (picked == last) continue;
    last = picked;
    rows[kept++] = c.first[unit] + c.prefix + order[picked];
  }
  c.kept[unit] = kept;
}

}  // namespace framecast::FRAMECAST_SET
