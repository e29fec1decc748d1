// Attention of a stream's chunk over the keys and values in its slot.
//
// Each slot and head has a ring buffer of `ring` steps in float16: keys by dimension [d, stride], so that one vector
// instruction scores 16 keys; values by step [ring, d]. Both are read in place.
#pragma once

#include <cstring>

#include "thread_pool.hpp"
#include "vector.hpp"

namespace conure {

struct Rings {
  uint16_t* keys;    // [slots, heads, d, stride]
  uint16_t* values;  // [slots, heads, ring, d]
  int64_t ring, stride;
};

// The rows of one engine step. A row's chunk begins `ages` steps after its stream's start; `counts` of its steps are
// valid, the others are padding.
struct StreamStep {
  const int64_t* slots;
  const int64_t* ages;
  const int64_t* counts;
  int64_t rows, chunk;
};

struct Attention {
  const float* shift;     // [heads * d], position bias minus content bias: added to a query before the position table
  const uint16_t* table;  // [heads, d, columns] in float16: column c is distance past + max_chunk - c
  int64_t columns, heads, width, past, max_chunk;
};

constexpr int kQueryGroup = 4, kVectorGroup = 6, kPrefetchRows = 16;

// coefficients [kQueries, depth] times matrix [depth, kVectors * 16] -> out [kQueries, kVectors * 16].
template <int kQueries, int kVectors, typename Number>
void matmul(const float* coefficients, int64_t depth, const Number* matrix, int64_t stride, float* out,
            int64_t out_stride) {
  Floats sums[kQueries][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kQueries; i++)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) sums[i][v] = _mm512_setzero_ps();
  for (int64_t k = 0; k < depth; k++) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v += 2)  // hardware prefetchers stop at a page boundary
      _mm_prefetch((const char*)(matrix + (k + kPrefetchRows) * stride + v * kLanes), _MM_HINT_T0);
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
    for (int v = 0; v < kVectors; v++) _mm512_storeu_ps(out + i * out_stride + v * kLanes, sums[i][v]);
}

// The remaining vectors, at most kVectors.
template <int kQueries, int kVectors, typename Number>
void matmul_rest(const float* coefficients, int64_t depth, const Number* matrix, int64_t stride, int64_t vectors,
                 float* out, int64_t out_stride) {
  if constexpr (kVectors > 0) {
    if (vectors == kVectors)
      matmul<kQueries, kVectors>(coefficients, depth, matrix, stride, out, out_stride);
    else
      matmul_rest<kQueries, kVectors - 1>(coefficients, depth, matrix, stride, vectors, out, out_stride);
  }
}

template <int kQueries, typename Number>
void matmul(const float* coefficients, int64_t depth, const Number* matrix, int64_t stride, int64_t vectors, float* out,
            int64_t out_stride) {
  for (; vectors > kVectorGroup; vectors -= kVectorGroup, matrix += kVectorGroup * kLanes, out += kVectorGroup * kLanes)
    matmul<kQueries, kVectorGroup>(coefficients, depth, matrix, stride, out, out_stride);
  matmul_rest<kQueries, kVectorGroup>(coefficients, depth, matrix, stride, vectors, out, out_stride);
}

// coefficients [queries, depth] times matrix [depth, vectors * 16] -> out [queries, out_stride].
template <typename Number>
void matmul(const float* coefficients, int64_t queries, int64_t depth, const Number* matrix, int64_t stride,
            int64_t vectors, float* out, int64_t out_stride) {
  for (; queries >= kQueryGroup; queries -= kQueryGroup) {
    matmul<kQueryGroup>(coefficients, depth, matrix, stride, vectors, out, out_stride);
    coefficients += kQueryGroup * depth, out += kQueryGroup * out_stride;
  }
  if (queries >= 2) {
    matmul<2>(coefficients, depth, matrix, stride, vectors, out, out_stride);
    queries -= 2, coefficients += 2 * depth, out += 2 * out_stride;
  }
  if (queries) matmul<1>(coefficients, depth, matrix, stride, vectors, out, out_stride);
}

inline int64_t vectors(int64_t count) { return (count + kLanes - 1) / kLanes; }

// Weights below e^-40 become 0: their products would be denormal, and denormals are a hundred times slower.
constexpr float kMinExponent = -40.0f;

// Writes e^(score - largest score) in place and returns the sum. Scores [count] must be followed by space for one
// vector, which is set to 0.
inline float exp_and_sum(float* scores, int64_t count) {
  Floats largest = _mm512_set1_ps(-1e30f), sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i += kLanes)
    largest = _mm512_mask_max_ps(largest, first_lanes(count - i), largest, load(scores + i));
  largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats score = _mm512_sub_ps(load(scores + i), largest);
    const Floats lowest = _mm512_set1_ps(kMinExponent);
    const __mmask16 is_normal = _mm512_mask_cmp_ps_mask(first_lanes(count - i), score, lowest, _CMP_GT_OQ);
    const Floats part = _mm512_maskz_mov_ps(is_normal, exp(score));
    sum = _mm512_add_ps(sum, part);
    _mm512_storeu_ps(scores + i, part);
  }
  return _mm512_reduce_add_ps(sum);
}

inline void softmax(float* scores, int64_t count) {
  const Floats scale = _mm512_set1_ps(1.0f / exp_and_sum(scores, count));
  for (int64_t i = 0; i < count; i += kLanes) _mm512_storeu_ps(scores + i, _mm512_mul_ps(load(scores + i), scale));
}

// Buffers of one thread, reused by its tasks.
class Scratch {
 public:
  float *queries, *position_queries, *scores, *distances, *visible_scores, *weights;

  Scratch(const Attention& a, const Rings& rings, int64_t chunk) {
    const int64_t score_stride = vectors(rings.ring) * kLanes;
    const int64_t distance_stride = vectors(a.past + 2 * chunk) * kLanes;
    const int64_t sizes[] = {chunk * a.width,         chunk * a.width,       chunk * score_stride,
                             chunk * distance_stride, score_stride + kLanes, chunk * score_stride};
    float** const parts[] = {&queries, &position_queries, &scores, &distances, &visible_scores, &weights};
    int64_t total = 0;
    for (int64_t size : sizes) total += size;
    static thread_local std::vector<float> floats;
    if (int64_t(floats.size()) < total) floats.resize(total);
    float* at = floats.data();
    for (int i = 0; i < 6; i++) *parts[i] = at, at += sizes[i];
  }
};

class AttentionHead {
 public:
  AttentionHead(const Attention& attention, const Rings& rings, const StreamStep& stream_step, int64_t row,
                int64_t head)
      : a_(attention), r_(rings), stream_step_(stream_step), row_(row), head_(head) {
    const int64_t place = stream_step.slots[row] * a_.heads + head;
    keys_ = r_.keys + place * a_.width * r_.stride;
    values_ = r_.values + place * r_.ring * a_.width;
  }

  // projected [rows * chunk, 3 * heads * d]: queries, keys and values. mixed [rows * chunk, heads * d].
  void attend(const float* projected, const Scratch& scratch, float* mixed) {
    const int64_t model_width = a_.heads * a_.width, chunk = stream_step_.chunk;
    const int64_t count = stream_step_.counts[row_], age = stream_step_.ages[row_];
    const float* begin = projected + row_ * chunk * 3 * model_width + head_ * a_.width;
    for (int64_t i = 0; i < count; i++)
      write_key_value(begin + (3 * i + 1) * model_width, begin + (3 * i + 2) * model_width, age + i);
    for (int64_t i = 0; i < chunk; i++)
      split_query(begin + i * 3 * model_width, scratch.queries + i * a_.width, scratch.position_queries + i * a_.width);
    const int64_t score_stride = vectors(r_.ring) * kLanes;
    const int64_t distance_stride = vectors(a_.past + 2 * chunk) * kLanes;
    const uint16_t* table = a_.table + head_ * a_.width * a_.columns + a_.max_chunk - chunk;
    matmul(scratch.queries, chunk, a_.width, keys_, r_.stride, score_stride / kLanes, scratch.scores, score_stride);
    matmul(scratch.position_queries, chunk, a_.width, table, a_.columns, distance_stride / kLanes, scratch.distances,
           distance_stride);
    // The visible past is a multiple of the chunk, as in the attention of a whole clip.
    const int64_t visible_past = std::min(age, a_.past / chunk * chunk);
    for (int64_t i = 0; i < chunk; i++) {
      // For query i, visible key j is in column chunk - i + j.
      const float* distances = scratch.distances + i * distance_stride + chunk - i + a_.past - visible_past;
      softmax_visible(scratch.scores + i * score_stride, distances, age - visible_past, visible_past + count,
                      scratch.visible_scores, scratch.weights + i * r_.ring);
    }
    float* out = mixed + row_ * chunk * model_width + head_ * a_.width;
    matmul(scratch.weights, chunk, r_.ring, values_, a_.width, a_.width / kLanes, out, model_width);
  }

 private:
  const Attention& a_;
  const Rings& r_;
  const StreamStep& stream_step_;
  const int64_t row_, head_;
  uint16_t *keys_, *values_;

  void write_key_value(const float* key, const float* value, int64_t step) {
    const int64_t place = step % r_.ring;
    alignas(32) uint16_t halves[kLanes];
    for (int64_t d = 0; d < a_.width; d += kLanes) {
      _mm256_store_si256((__m256i*)halves, to_half(load(key + d)));
      for (int i = 0; i < kLanes; i++) keys_[(d + i) * r_.stride + place] = halves[i];
      _mm256_storeu_si256((__m256i*)(values_ + place * a_.width + d), to_half(load(value + d)));
    }
  }

  void split_query(const float* query, float* content_query, float* position_query) {
    const float* shift = a_.shift + head_ * a_.width;
    for (int64_t d = 0; d < a_.width; d += kLanes) {
      _mm512_storeu_ps(content_query + d, load(query + d));
      _mm512_storeu_ps(position_query + d, _mm512_add_ps(load(query + d), load(shift + d)));
    }
  }

  // Content scores [ring] and position scores [visible] -> softmax weights [ring]. The visible keys begin at `step` and
  // may wrap around the ring.
  void softmax_visible(const float* scores, const float* distances, int64_t step, int64_t visible,
                       float* visible_scores, float* weights) {
    const int64_t place = step % r_.ring, until_wrap = std::min(visible, r_.ring - place);
    std::memcpy(visible_scores, scores + place, until_wrap * sizeof(float));
    std::memcpy(visible_scores + until_wrap, scores, (visible - until_wrap) * sizeof(float));
    for (int64_t j = 0; j < visible; j += kLanes) {
      const Floats position = _mm512_maskz_loadu_ps(first_lanes(visible - j), distances + j);
      _mm512_storeu_ps(visible_scores + j, _mm512_add_ps(load(visible_scores + j), position));
    }
    softmax(visible_scores, visible);
    std::memset(weights, 0, r_.ring * sizeof(float));
    std::memcpy(weights + place, visible_scores, until_wrap * sizeof(float));
    std::memcpy(weights, visible_scores + until_wrap, (visible - until_wrap) * sizeof(float));
  }
};

// Tasks go through all heads of a row before the next row: their rings are adjacent in memory, and the position tables
// of all heads fit into the cache.
inline void attend(ThreadPool& pool, const Attention& attention, const Rings& rings, const StreamStep& stream_step,
                   const float* projected, float* mixed) {
  pool.parallel_for(attention.heads * stream_step.rows, 4, [&](int64_t begin, int64_t end) {
    const Scratch scratch(attention, rings, stream_step.chunk);
    for (int64_t i = begin; i < end; i++)
      AttentionHead(attention, rings, stream_step, i / attention.heads, i % attention.heads)
          .attend(projected, scratch, mixed);
  });
}

}  // namespace conure
