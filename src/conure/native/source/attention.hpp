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
  const float* shift;  // [heads * d], what queries for distances have more than those for keys
  const float* table;  // [heads, d, columns]: column c is of distance past + (longest chunk) - c
  int64_t columns, heads, width, past, longest;
};

constexpr int kGroup = 4, kSpan = 6;

// coefficients [kQueries, depth] times matrix [depth, kVectors * 16] -> to [kQueries, ...].
template <int kQueries, int kVectors, typename Number>
void combine(const float* coefficients, int64_t depth, const Number* matrix, int64_t stride, float* to, int64_t apart) {
  Floats sums[kQueries][kVectors];
  for (auto& row : sums)
    for (auto& sum : row) sum = _mm512_setzero_ps();
  for (int64_t k = 0; k < depth; k++) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) {
      const Floats row = load(matrix + k * stride + v * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kQueries; i++)
        sums[i][v] = _mm512_fmadd_ps(_mm512_set1_ps(coefficients[i * depth + k]), row, sums[i][v]);
    }
  }
  for (int i = 0; i < kQueries; i++)
    for (int v = 0; v < kVectors; v++) _mm512_storeu_ps(to + i * apart + v * kLanes, sums[i][v]);
}

template <int kQueries, typename Number>
void combine(const float* coefficients, int64_t depth, const Number* matrix, int64_t stride, int64_t vectors, float* to,
             int64_t apart) {
  for (; vectors >= kSpan; vectors -= kSpan, matrix += kSpan * kLanes, to += kSpan * kLanes)
    combine<kQueries, kSpan>(coefficients, depth, matrix, stride, to, apart);
  for (; vectors > 0; vectors--, matrix += kLanes, to += kLanes)
    combine<kQueries, 1>(coefficients, depth, matrix, stride, to, apart);
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

// In place; scores [count] are followed by room for a vector.
inline void softmax(float* scores, int64_t count) {
  const Floats nothing = _mm512_set1_ps(-1e30f);
  Floats most = nothing, sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i += kLanes)
    most = _mm512_mask_max_ps(most, first(count - i), most, load(scores + i));
  most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats part = _mm512_maskz_mov_ps(first(count - i), exp(_mm512_sub_ps(load(scores + i), most)));
    sum = _mm512_add_ps(sum, part);
    _mm512_storeu_ps(scores + i, part);
  }
  const Floats scale = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(sum));
  for (int64_t i = 0; i < count; i += kLanes) _mm512_storeu_ps(scores + i, _mm512_mul_ps(load(scores + i), scale));
}

class Head {
 public:
  Head(const Attention& attention, const Rings& rings, const Turn& turn, int64_t row, int64_t head)
      : a_(attention), r_(rings), turn_(turn), row_(row), head_(head) {
    const int64_t place = turn.slots[row] * a_.heads + head;
    keys_ = r_.keys + place * a_.width * r_.stride;
    values_ = r_.values + place * r_.ring * a_.width;
  }

  // projected [rows * chunk, 3 * heads * d] holds queries, keys and values; mixed [rows * chunk, heads * d].
  void attend(const float* projected, float* mixed) {
    const int64_t all = a_.heads * a_.width, chunk = turn_.chunk, count = turn_.counts[row_], age = turn_.ages[row_];
    const float* begin = projected + row_ * chunk * 3 * all + head_ * a_.width;
    for (int64_t i = 0; i < count; i++) remember(begin + i * 3 * all + all, begin + i * 3 * all + 2 * all, age + i);
    // Whole chunks alone are seen of the past, so that a step sees what it would see in a whole clip.
    const int64_t whole = std::min(age, a_.past / chunk * chunk);
    const int64_t from = a_.past - whole, seen = whole + count;
    const int64_t apart = vectors(r_.ring) * kLanes, near = vectors(a_.past + 2 * chunk) * kLanes;
    reserve(chunk, apart, near);
    for (int64_t i = 0; i < chunk; i++) split(begin + i * 3 * all, i);
    const float* table = a_.table + head_ * a_.width * a_.columns + a_.longest - chunk;
    combine(queries_.data(), chunk, a_.width, keys_, r_.stride, apart / kLanes, scores_.data(), apart);
    combine(placed_.data(), chunk, a_.width, table, a_.columns, near / kLanes, distances_.data(), near);
    const int64_t place = (age - whole) % r_.ring, before = std::min(seen, r_.ring - place);
    for (int64_t i = 0; i < chunk; i++) {
      // Of query i, key j of those that a row may see is in column chunk - i + j. In the ring they come in two parts.
      const float* distance = distances_.data() + i * near + chunk - i + from;
      float* scores = scores_.data() + i * apart;
      for (int64_t j = 0; j < before; j++) line_[j] = scores[place + j] + distance[j];
      for (int64_t j = before; j < seen; j++) line_[j] = scores[j - before] + distance[j];
      softmax(line_.data(), seen);
      float* weights = weights_.data() + i * r_.ring;
      std::memset(weights, 0, r_.ring * sizeof(float));
      std::memcpy(weights + place, line_.data(), before * sizeof(float));
      std::memcpy(weights, line_.data() + before, (seen - before) * sizeof(float));
    }
    float* to = mixed + row_ * chunk * all + head_ * a_.width;
    combine(weights_.data(), chunk, r_.ring, values_, a_.width, a_.width / kLanes, to, all);
  }

 private:
  const Attention& a_;
  const Rings& r_;
  const Turn& turn_;
  const int64_t row_, head_;
  uint16_t *keys_, *values_;
  static thread_local std::vector<float> queries_, placed_, scores_, distances_, line_, weights_;

  void reserve(int64_t chunk, int64_t apart, int64_t near) {
    queries_.resize(chunk * a_.width);
    placed_.resize(chunk * a_.width);
    scores_.resize(chunk * apart);
    distances_.resize(chunk * near);
    line_.resize(apart + kLanes);
    weights_.resize(chunk * r_.ring);
  }

  void remember(const float* key, const float* value, int64_t step) {
    const int64_t place = step % r_.ring;
    alignas(32) uint16_t halves[kLanes];
    for (int64_t d = 0; d < a_.width; d += kLanes) {
      _mm256_store_si256((__m256i*)halves, to_half(load(key + d)));
      for (int i = 0; i < kLanes; i++) keys_[(d + i) * r_.stride + place] = halves[i];
      _mm256_storeu_si256((__m256i*)(values_ + place * a_.width + d), to_half(load(value + d)));
    }
  }

  void split(const float* query, int64_t i) {
    const float* shift = a_.shift + head_ * a_.width;
    for (int64_t d = 0; d < a_.width; d += kLanes) {
      _mm512_storeu_ps(queries_.data() + i * a_.width + d, load(query + d));
      _mm512_storeu_ps(placed_.data() + i * a_.width + d, _mm512_add_ps(load(query + d), load(shift + d)));
    }
  }
};

inline thread_local std::vector<float> Head::queries_, Head::placed_, Head::scores_, Head::distances_, Head::line_,
    Head::weights_;

// Heads come one after the other, so that a head's table stays in the cache for all rows.
inline void attend(Pool& pool, const Attention& attention, const Rings& rings, const Turn& turn, const float* projected,
                   float* mixed) {
  pool.each(attention.heads * turn.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      Head(attention, rings, turn, i % turn.rows, i / turn.rows).attend(projected, mixed);
  });
}

}  // namespace conure
