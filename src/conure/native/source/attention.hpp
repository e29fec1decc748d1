// A chunk's queries attend to what its row remembers.
//
// A row and head has a ring of `ring` steps in half precision: keys lie by dimension [d, stride], so that scores of
// 16 keys are found at once, values by step [ring, d]. They are read where they are.
#pragma once

#include <cstring>

#include "pool.hpp"
#include "vector.hpp"

namespace conure {

struct Rings {
  uint16_t* keys;    // [slots, heads, d, stride]
  uint16_t* values;  // [slots, heads, ring, d]
  int64_t ring, stride;
};

// What a turn brings. A row's chunk begins `ages` steps after the row's start; `counts` of its steps are real.
struct Turn {
  const int64_t* slots;
  const int64_t* ages;
  const int64_t* counts;
  int64_t rows, chunk;
};

struct Attention {
  const float* shift;     // [heads * d], what queries for distances have more than those for keys
  const uint16_t* table;  // [heads, d, columns] in halves: column c is of distance past + (longest chunk) - c
  int64_t columns, heads, width, past, longest;
};

constexpr int kGroup = 4, kSpan = 6, kAhead = 16;

// coefficients [kQueries, depth] times matrix [depth, kVectors * 16] -> to [kQueries, ...].
template <int kQueries, int kVectors, typename Number>
void combine(const float* coefficients, int64_t depth, const Number* matrix, int64_t stride, float* to, int64_t apart) {
  Floats sums[kQueries][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; i++)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) sums[i][v] = _mm512_setzero_ps();
  for (int64_t k = 0; k < depth; k++) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v += 2)  // the processor itself does not look beyond a page
      _mm_prefetch((const char*)(matrix + (k + kAhead) * stride + v * kLanes), _MM_HINT_T0);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) {
      const Floats row = load(matrix + k * stride + v * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kQueries; i++)
        sums[i][v] = _mm512_fmadd_ps(_mm512_set1_ps(coefficients[i * depth + k]), row, sums[i][v]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; i++)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) _mm512_storeu_ps(to + i * apart + v * kLanes, sums[i][v]);
}

// The vectors that are left, kVectors or fewer.
template <int kQueries, int kVectors, typename Number>
void combine_rest(const float* coefficients, int64_t depth, const Number* matrix, int64_t stride, int64_t vectors,
                  float* to, int64_t apart) {
  if constexpr (kVectors > 0) {
    if (vectors == kVectors)
      combine<kQueries, kVectors>(coefficients, depth, matrix, stride, to, apart);
    else
      combine_rest<kQueries, kVectors - 1>(coefficients, depth, matrix, stride, vectors, to, apart);
  }
}

template <int kQueries, typename Number>
void combine(const float* coefficients, int64_t depth, const Number* matrix, int64_t stride, int64_t vectors, float* to,
             int64_t apart) {
  for (; vectors > kSpan; vectors -= kSpan, matrix += kSpan * kLanes, to += kSpan * kLanes)
    combine<kQueries, kSpan>(coefficients, depth, matrix, stride, to, apart);
  combine_rest<kQueries, kSpan>(coefficients, depth, matrix, stride, vectors, to, apart);
}

// coefficients [queries, depth] times matrix [depth, vectors * 16] -> to [queries, apart].
template <typename Number>
void combine(const float* coefficients, int64_t queries, int64_t depth, const Number* matrix, int64_t stride,
             int64_t vectors, float* to, int64_t apart) {
  for (; queries >= kGroup; queries -= kGroup, coefficients += kGroup * depth, to += kGroup * apart)
    combine<kGroup>(coefficients, depth, matrix, stride, vectors, to, apart);
  if (queries >= 2) {
    combine<2>(coefficients, depth, matrix, stride, vectors, to, apart);
    queries -= 2, coefficients += 2 * depth, to += 2 * apart;
  }
  if (queries) combine<1>(coefficients, depth, matrix, stride, vectors, to, apart);
}

inline int64_t vectors(int64_t count) { return (count + kLanes - 1) / kLanes; }

// Weights below e^-40 become 0: their products would be too small for normal numbers, which take a hundred times as long.
constexpr float kLeast = -40.0f;

// e^(score - the largest one) in place, and their sum; scores [count] are followed by room for a vector, which becomes 0.
inline float exponents(float* scores, int64_t count) {
  const Floats nothing = _mm512_set1_ps(-1e30f);
  Floats most = nothing, sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i += kLanes)
    most = _mm512_mask_max_ps(most, first(count - i), most, load(scores + i));
  most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats score = _mm512_sub_ps(load(scores + i), most);
    const __mmask16 counts = _mm512_mask_cmp_ps_mask(first(count - i), score, _mm512_set1_ps(kLeast), _CMP_GT_OQ);
    const Floats part = _mm512_maskz_mov_ps(counts, exp(score));
    sum = _mm512_add_ps(sum, part);
    _mm512_storeu_ps(scores + i, part);
  }
  return _mm512_reduce_add_ps(sum);
}

inline void softmax(float* scores, int64_t count) {
  const Floats scale = _mm512_set1_ps(1.0f / exponents(scores, count));
  for (int64_t i = 0; i < count; i += kLanes) _mm512_storeu_ps(scores + i, _mm512_mul_ps(load(scores + i), scale));
}

// What a thread needs between its tasks.
class Scratch {
 public:
  float *queries, *placed, *scores, *distances, *line, *weights;

  Scratch(const Attention& a, const Rings& rings, int64_t chunk) {
    const int64_t apart = vectors(rings.ring) * kLanes, near = vectors(a.past + 2 * chunk) * kLanes;
    const int64_t sizes[] = {chunk * a.width, chunk * a.width, chunk * apart, chunk * near, apart + kLanes, chunk * apart};
    float** const parts[] = {&queries, &placed, &scores, &distances, &line, &weights};
    int64_t all = 0;
    for (int64_t size : sizes) all += size;
    static thread_local std::vector<float> floats;
    if (int64_t(floats.size()) < all) floats.resize(all);
    float* at = floats.data();
    for (int i = 0; i < 6; i++) *parts[i] = at, at += sizes[i];
  }
};

class Head {
 public:
  Head(const Attention& attention, const Rings& rings, const Turn& turn, int64_t row, int64_t head)
      : a_(attention), r_(rings), turn_(turn), row_(row), head_(head) {
    const int64_t place = turn.slots[row] * a_.heads + head;
    keys_ = r_.keys + place * a_.width * r_.stride;
    values_ = r_.values + place * r_.ring * a_.width;
  }

  // projected [rows * chunk, 3 * heads * d] holds queries, keys and values; mixed [rows * chunk, heads * d].
  void attend(const float* projected, const Scratch& to, float* mixed) {
    const int64_t all = a_.heads * a_.width, chunk = turn_.chunk, count = turn_.counts[row_], age = turn_.ages[row_];
    const float* begin = projected + row_ * chunk * 3 * all + head_ * a_.width;
    for (int64_t i = 0; i < count; i++) remember(begin + i * 3 * all + all, begin + i * 3 * all + 2 * all, age + i);
    for (int64_t i = 0; i < chunk; i++) split(begin + i * 3 * all, to.queries + i * a_.width, to.placed + i * a_.width);
    const int64_t apart = vectors(r_.ring) * kLanes, near = vectors(a_.past + 2 * chunk) * kLanes;
    const uint16_t* table = a_.table + head_ * a_.width * a_.columns + a_.longest - chunk;
    combine(to.queries, chunk, a_.width, keys_, r_.stride, apart / kLanes, to.scores, apart);
    combine(to.placed, chunk, a_.width, table, a_.columns, near / kLanes, to.distances, near);
    // Whole chunks alone are seen of the past, so that a step sees what it would see in a whole clip.
    const int64_t whole = std::min(age, a_.past / chunk * chunk);
    for (int64_t i = 0; i < chunk; i++) {
      // Of query i, key j of those in reach is in column chunk - i + j.
      const float* distances = to.distances + i * near + chunk - i + a_.past - whole;
      weigh(to.scores + i * apart, distances, age - whole, whole + count, to.line, to.weights + i * r_.ring);
    }
    float* out = mixed + row_ * chunk * all + head_ * a_.width;
    combine(to.weights, chunk, r_.ring, values_, a_.width, a_.width / kLanes, out, all);
  }

 private:
  const Attention& a_;
  const Rings& r_;
  const Turn& turn_;
  const int64_t row_, head_;
  uint16_t *keys_, *values_;

  void remember(const float* key, const float* value, int64_t step) {
    const int64_t place = step % r_.ring;
    alignas(32) uint16_t halves[kLanes];
    for (int64_t d = 0; d < a_.width; d += kLanes) {
      _mm256_store_si256((__m256i*)halves, to_half(load(key + d)));
      for (int i = 0; i < kLanes; i++) keys_[(d + i) * r_.stride + place] = halves[i];
      _mm256_storeu_si256((__m256i*)(values_ + place * a_.width + d), to_half(load(value + d)));
    }
  }

  void split(const float* query, float* own, float* placed) {
    const float* shift = a_.shift + head_ * a_.width;
    for (int64_t d = 0; d < a_.width; d += kLanes) {
      _mm512_storeu_ps(own + d, load(query + d));
      _mm512_storeu_ps(placed + d, _mm512_add_ps(load(query + d), load(shift + d)));
    }
  }

  // Scores [ring] and distances [seen] become weights [ring]: what is seen begins with a step and may go round the ring.
  void weigh(const float* scores, const float* distances, int64_t step, int64_t seen, float* line, float* weights) {
    const int64_t place = step % r_.ring, before = std::min(seen, r_.ring - place);
    std::memcpy(line, scores + place, before * sizeof(float));
    std::memcpy(line + before, scores, (seen - before) * sizeof(float));
    for (int64_t j = 0; j < seen; j += kLanes) {
      const Floats near = _mm512_maskz_loadu_ps(first(seen - j), distances + j);
      _mm512_storeu_ps(line + j, _mm512_add_ps(load(line + j), near));
    }
    softmax(line, seen);
    std::memset(weights, 0, r_.ring * sizeof(float));
    std::memcpy(weights + place, line, before * sizeof(float));
    std::memcpy(weights, line + before, (seen - before) * sizeof(float));
  }
};

// A row's heads come one after the other: their rings lie one after the other, and the tables of all fit the cache.
inline void attend(Pool& pool, const Attention& attention, const Rings& rings, const Turn& turn, const float* projected,
                   float* mixed) {
  pool.each(attention.heads * turn.rows, 4, [&](int64_t begin, int64_t end) {
    const Scratch scratch(attention, rings, turn.chunk);
    for (int64_t i = begin; i < end; i++)
      Head(attention, rings, turn, i / attention.heads, i % attention.heads).attend(projected, scratch, mixed);
  });
}

}  // namespace conure
