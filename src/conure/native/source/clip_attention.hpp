// Attention and depthwise convolution of whole clips, whose steps are concatenated without padding.
//
// Scores are int8 products: a query is a row, a key or a distance is a column, each with its own scale. Values are
// weighted in int16, twice as fast as float32; int8 would lose the sum of many small weights. The keys and values of a
// head are packed once for all of its queries.
#pragma once

#include "int8_matmul.hpp"
#include "reused_buffer.hpp"
#include "stream_filter.hpp"

namespace conure {

struct Clips {
  const int64_t* begins;  // [count + 1], first row of each clip
  const int64_t* first;   // [rows], the first step of the clip that is visible to a step
  const int64_t* end;     // [rows], the end of the visible steps
  int64_t count;
  const int64_t* global_begins;  // [count + 1], offsets into `global_rows`, or null
  const int64_t* global_rows;  // global steps: rows that are visible to every step of their clip
  const float* global_scores;    // [rows, heads, max_global], their scores
  int64_t max_global;

  int64_t global_count(int64_t clip) const { return global_begins ? global_begins[clip + 1] - global_begins[clip] : 0; }
  int64_t rows() const { return begins[count]; }
  int64_t clip(int64_t row) const { return std::upper_bound(begins, begins + count, row) - begins - 1; }
};

struct Distances {
  const uint8_t* values;  // [heads, columns / 64, d / 4, 64, 4], packed as weights: column c is distance reach - c
  const float* scales;    // [heads, columns]
  const float* shift;     // [heads * d], position bias minus content bias: added to a query before the distances
  int64_t heads, width, columns, reach;
};

// Values are within +-kValueLevels; a row's weights are at most kWeightLevels and add up to kWeightSum, so that the
// sums of products stay below 2^31.
constexpr float kValueLevels = 1023, kWeightLevels = 32767, kWeightSum = 1 << 20;
constexpr int64_t kPrefetchSteps = 4;

// Rows of a head are pages apart, and hardware prefetchers stop at a page boundary.
inline void prefetch(const float* row, int64_t width) {
  for (int64_t k = 0; k < width; k += kLanes) _mm_prefetch((const char*)(row + k), _MM_HINT_T0);
}

inline int64_t blocks(int64_t columns) { return (columns + kBlock - 1) / kBlock; }

// Packed keys and values of all heads; within a head each clip begins at a new block.
class PackedKeysValues {
 public:
  PackedKeysValues(const Distances& d, const Clips& clips) : d_(d), clips_(clips), begins_(clips.count + 1) {
    for (int64_t i = 0; i < clips.count; i++)
      begins_[i + 1] = begins_[i] + blocks(clips.begins[i + 1] - clips.begins[i]) * kBlock;
    const int64_t columns = d.heads * begins_[clips.count];
    static thread_local ReusedBuffer<uint8_t> keys;
    static thread_local ReusedBuffer<int32_t> values;
    static thread_local ReusedBuffer<float> scales, value_scales;
    keys_ = keys.reserve(columns * d.width), scales_ = scales.reserve(columns);
    values_ = values.reserve(columns / 2 * d.width);
    value_scales_ = value_scales.reserve(d.heads * clips.count * d.width);
  }

  Weight keys(int64_t clip, int64_t head) const {
    const int64_t at = place(clip, head);
    return {keys_ + at * d_.width, scales_ + at, nullptr, d_.width, begins_[clip + 1] - begins_[clip]};
  }

  // [steps / 2, d], pairs of steps.
  const int32_t* values(int64_t clip, int64_t head) const { return values_ + place(clip, head) / 2 * d_.width; }
  const float* value_scales(int64_t clip, int64_t head) const {
    return value_scales_ + (head * clips_.count + clip) * d_.width;
  }

  // projected [rows, 3 * heads * d]: queries, keys and values.
  void pack(int64_t clip, int64_t head, const float* projected) {
    const int64_t model_width = d_.heads * d_.width, at = place(clip, head);
    const int64_t count = clips_.begins[clip + 1] - clips_.begins[clip];
    const float* row = projected + clips_.begins[clip] * 3 * model_width + head * d_.width;
    for (int64_t i = 0; i < count; i++, row += 3 * model_width) {
      prefetch(row + (1 + 3 * kPrefetchSteps) * model_width, d_.width);
      const int64_t block = i / kBlock * kBlock;
      int32_t sum;
      auto* quads = reinterpret_cast<int8_t*>(keys_ + (at + block) * d_.width + (i - block) * kQuad);
      quantise(row + model_width, d_.width, quads, kBlock * kQuad, scales_[at + i], sum);
    }
    const __m512i offset = _mm512_set1_epi8(char(kOffset));
    uint8_t* bytes = keys_ + at * d_.width;
    for (int64_t i = 0; i < blocks(count) * kBlock * d_.width; i += kLine)
      _mm512_storeu_si512(bytes + i, _mm512_xor_si512(_mm512_loadu_si512(bytes + i), offset));
    const float* values = projected + (3 * clips_.begins[clip] + 2) * model_width + head * d_.width;
    pack_values(clip, head, values, 3 * model_width, count);
  }

 private:
  const Distances& d_;
  const Clips& clips_;
  std::vector<int64_t> begins_;
  uint8_t* keys_;
  int32_t* values_;
  float *scales_, *value_scales_;

  void pack_values(int64_t clip, int64_t head, const float* rows, int64_t stride, int64_t count) {
    float* scales = value_scales_ + (head * clips_.count + clip) * d_.width;
    for (int64_t k = 0; k < d_.width; k += kLanes) _mm512_storeu_ps(scales + k, _mm512_set1_ps(kSmallest));
    for (int64_t i = 0; i < count; i++) {
      prefetch(rows + (i + kPrefetchSteps) * stride, d_.width);
      for (int64_t k = 0; k < d_.width; k += kLanes)
        _mm512_storeu_ps(scales + k, _mm512_max_ps(load(scales + k), _mm512_abs_ps(load(rows + i * stride + k))));
    }
    for (int64_t k = 0; k < d_.width; k += kLanes)
      _mm512_storeu_ps(scales + k, _mm512_mul_ps(load(scales + k), _mm512_set1_ps(1 / kValueLevels)));
    int32_t* out = values_ + place(clip, head) / 2 * d_.width;
    for (int64_t i = 0; i < count; i += 2, out += d_.width)
      for (int64_t k = 0; k < d_.width; k += kLanes) {
        const Floats inverse = _mm512_div_ps(_mm512_set1_ps(1), load(scales + k));
        const float* row = rows + i * stride + k;
        const __m512i even = _mm512_cvtps_epi32(_mm512_mul_ps(load(row), inverse));
        __m512i next = _mm512_setzero_si512();
        if (i + 1 < count) next = _mm512_cvtps_epi32(_mm512_mul_ps(load(row + stride), inverse));
        const __m512i first = _mm512_and_si512(even, _mm512_set1_epi32(0xffff));
        _mm512_storeu_si512(out + k, _mm512_or_si512(first, _mm512_slli_epi32(next, 16)));
      }
  }

  int64_t place(int64_t clip, int64_t head) const { return head * begins_[clips_.count] + begins_[clip]; }
};

// Attention of a tile of queries of one head.
class QueryTile {
 public:
  QueryTile(const Distances& distances, int64_t longest, int64_t max_global) : d_(distances), max_global_(max_global) {
    const int64_t columns = (blocks(longest) + 2) * kBlock, bytes = kTileRows * d_.width;
    static thread_local ReusedBuffer<int8_t> rows;
    static thread_local ReusedBuffer<float> scores, distance_scores, visible_scores, shifted_query, global_weights;
    static thread_local ReusedBuffer<int16_t> weights;
    content_queries_ = rows.reserve(2 * bytes), position_queries_ = content_queries_ + bytes;
    scores_ = scores.reserve(kTileRows * columns), distance_scores_ = distance_scores.reserve(kTileRows * columns);
    visible_scores_ = visible_scores.reserve(columns + max_global + kLanes);
    shifted_query_ = shifted_query.reserve(d_.width);
    global_weights_ = global_weights.reserve(kTileRows * max_global + 1);
    weights_ = weights.reserve(kTileRows * columns + 2 * kLanes);
    columns_ = columns;
  }

  // Steps begin .. begin + count - 1 of the clip.
  void attend(const PackedKeysValues& packed, const Clips& clips, int64_t clip, int64_t head, int64_t begin,
              int64_t count, const float* projected, float* mixed) {
    const int64_t model_width = d_.heads * d_.width, row = clips.begins[clip] + begin;
    const int64_t *first = clips.first + row, *end = clips.end + row;
    const int64_t low = *std::min_element(first, first + count), high = *std::max_element(end, end + count);
    split(projected + row * 3 * model_width + head * d_.width, 3 * model_width, count, head);
    const int64_t at = low / kBlock, columns = columns_;
    multiply(content_queries_, content_scales_, content_sums_, count, packed.keys(clip, head), at, blocks(high) - at,
             scores_);
    // For query i, key j is in column reach - i + j.
    const int64_t left = d_.reach - (begin + count - 1) + low, right = d_.reach - begin + high;
    const int64_t first_block = left / kBlock;
    const int64_t place = head * d_.columns;
    const Weight table{d_.values + place * d_.width, d_.scales + place, nullptr, d_.width, d_.columns};
    multiply(position_queries_, position_scales_, position_sums_, count, table, first_block,
             blocks(right) - first_block, distance_scores_);
    const int64_t first_pair = low / 2, pairs = (high + 1) / 2 - first_pair;
    for (int64_t i = 0; i < count; i++) {
      const float* scores = scores_ + i * columns + first[i] - at * kBlock;
      const float* distances =
          distance_scores_ + i * columns + d_.reach - (begin + i) + first[i] - first_block * kBlock;
      int16_t* weights = weights_ + 2 * i * pairs;
      const GlobalKeys global{clips.global_scores + ((row + i) * d_.heads + head) * max_global_,
                              clips.global_count(clip), global_weights_ + i * max_global_};
      weight_scales_[i] =
          softmax_weights(scores, distances, first[i] - 2 * first_pair, end[i] - first[i], 2 * pairs, global, weights);
    }
    const Values values{packed.values(clip, head) + first_pair * d_.width, packed.value_scales(clip, head), pairs};
    mix(count, values, mixed + row * model_width + head * d_.width, model_width);
    for (int64_t k = 0; k < clips.global_count(clip); k++) {
      const int64_t global_row = clips.global_rows[clips.global_begins[clip] + k];
      const float* value = projected + global_row * 3 * model_width + 2 * model_width + head * d_.width;
      for (int64_t i = 0; i < count; i++)
        add(value, global_weights_[i * max_global_ + k], mixed + (row + i) * model_width + head * d_.width);
    }
  }

 private:
  struct Values {
    const int32_t* pairs;  // [count, d]
    const float* scales;   // [d]
    int64_t count;
  };

  // Global steps of a query: their scores, their number, and output for their softmax weights.
  struct GlobalKeys {
    const float* scores;
    int64_t count;
    float* weights_out;
  };

  const Distances& d_;
  const int64_t max_global_;
  int8_t *content_queries_, *position_queries_;
  float content_scales_[kTileRows], position_scales_[kTileRows], weight_scales_[kTileRows];
  int32_t content_sums_[kTileRows], position_sums_[kTileRows];
  float *scores_, *distance_scores_, *visible_scores_, *shifted_query_, *global_weights_;
  int16_t* weights_;
  int64_t columns_;

  void split(const float* query, int64_t stride, int64_t count, int64_t head) {
    const float* shift = d_.shift + head * d_.width;
    for (int64_t i = 0; i < count; i++, query += stride) {
      prefetch(query + kTileRows * stride, d_.width);
      for (int64_t k = 0; k < d_.width; k += kLanes)
        _mm512_storeu_ps(shifted_query_ + k, _mm512_add_ps(load(query + k), load(shift + k)));
      quantise(query, d_.width, content_queries_ + i * kQuad, count * kQuad, content_scales_[i], content_sums_[i]);
      quantise(shifted_query_, d_.width, position_queries_ + i * kQuad, count * kQuad, position_scales_[i],
               position_sums_[i]);
    }
  }

  void multiply(int8_t* rows, float* scales, int32_t* sums, int64_t count, const Weight& weight, int64_t first,
                int64_t block_count, float* out) const {
    const Quantised x{rows, scales, sums};
    const Result result{out - first * kBlock, columns_, Epilogue::kNothing};
    for (int64_t block = first; block < first + block_count; block++)
      kTiles[count - 1](x, 0, weight, block * kBlock, nullptr, result);
  }

  // int16 softmax weights [depth] of `visible` keys from `skipped` on, zeros elsewhere; space for one vector must
  // follow. Returns their scale.
  float softmax_weights(const float* scores, const float* distances, int64_t skipped, int64_t visible, int64_t depth,
              const GlobalKeys& global, int16_t* weights) {
    for (int64_t j = 0; j < visible; j += kLanes)
      _mm512_storeu_ps(visible_scores_ + j, _mm512_add_ps(load(scores + j), load(distances + j)));
    for (int64_t k = 0; k < global.count; k++) visible_scores_[visible + k] = global.scores[k];
    const float sum = exp_and_sum(visible_scores_, visible + global.count);
    const float levels = std::min(kWeightLevels, kWeightSum / sum);
    for (int64_t k = 0; k < global.count; k++) global.weights_out[k] = visible_scores_[visible + k] / sum;
    std::fill_n(weights, skipped, 0);
    for (int64_t j = 0; j < visible; j += kLanes) {
      const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(load(visible_scores_ + j), _mm512_set1_ps(levels)));
      _mm256_storeu_si256((__m256i*)(weights + skipped + j), _mm512_cvtepi32_epi16(rounded));
    }
    if (skipped + visible < depth) std::fill(weights + skipped + visible, weights + depth, 0);
    return 1 / (levels * sum);
  }

  void add(const float* value, float share, float* out) const {
    for (int64_t k = 0; k < d_.width; k += kLanes)
      _mm512_storeu_ps(out + k, _mm512_fmadd_ps(_mm512_set1_ps(share), load(value + k), load(out + k)));
  }

  void mix(int64_t count, const Values& values, float* out, int64_t stride) const {
    constexpr int kRows = 3;
    int64_t row = 0;
    for (; row + kRows <= count; row += kRows) mix_rows<kRows>(row, values, out + row * stride, stride);
    for (; row < count; row++) mix_rows<1>(row, values, out + row * stride, stride);
  }

  template <int kRows>
  void mix_rows(int64_t row, const Values& values, float* out, int64_t stride) const {
    constexpr int kWide = 8;
    int64_t at = 0;
    for (; at + kWide * kLanes <= d_.width; at += kWide * kLanes) mix_part<kRows, kWide>(row, values, at, out, stride);
    for (; at < d_.width; at += kLanes) mix_part<kRows, 1>(row, values, at, out, stride);
  }

  template <int kRows, int kWide>
  void mix_part(int64_t row, const Values& values, int64_t at, float* out, int64_t stride) const {
    const int32_t* weights = reinterpret_cast<const int32_t*>(weights_) + row * values.count;
    const int32_t* pair = values.pairs + at;
    __m512i sums[kRows][kWide];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int v = 0; v < kWide; v++) sums[r][v] = _mm512_setzero_si512();
    for (int64_t k = 0; k < values.count; k++, pair += d_.width) {
      __m512i weight_pair[kRows];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) weight_pair[r] = _mm512_set1_epi32(weights[r * values.count + k]);
#pragma GCC unroll 8
      for (int v = 0; v < kWide; v++) {
        const __m512i steps = _mm512_loadu_si512(pair + v * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; r++) sums[r][v] = _mm512_dpwssd_epi32(sums[r][v], steps, weight_pair[r]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int v = 0; v < kWide; v++) {
        const int64_t column = at + v * kLanes;
        const Floats scales = _mm512_mul_ps(_mm512_set1_ps(weight_scales_[row + r]), load(values.scales + column));
        _mm512_storeu_ps(out + r * stride + column, _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][v]), scales));
      }
  }
};

// projected [rows, 3 * heads * d] -> mixed [rows, heads * d].
inline void attend(ThreadPool& pool, const Distances& distances, const Clips& clips, const float* projected,
                   float* mixed) {
  constexpr int64_t kTilesPerTask = 8;
  PackedKeysValues packed(distances, clips);
  const int64_t heads = distances.heads;
  pool.parallel_for(clips.count * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) packed.pack(i / heads, i % heads, projected);
  });
  std::vector<std::array<int64_t, 3>> tasks;  // clip, head, first tile
  int64_t longest = 0;
  for (int64_t clip = 0; clip < clips.count; clip++) {
    const int64_t steps = clips.begins[clip + 1] - clips.begins[clip];
    longest = std::max(longest, steps);
    for (int64_t head = 0; head < heads; head++)
      for (int64_t tile = 0; tile < Tiles(steps).count; tile += kTilesPerTask) tasks.push_back({clip, head, tile});
  }
  pool.parallel_for(tasks.size(), 1, [&](int64_t begin, int64_t end) {
    QueryTile queries(distances, longest, clips.max_global);
    for (int64_t i = begin; i < end; i++) {
      const auto [clip, head, first] = tasks[i];
      const Tiles tiles(clips.begins[clip + 1] - clips.begins[clip]);
      for (int64_t tile = first; tile < std::min(first + kTilesPerTask, tiles.count); tile++)
        queries.attend(packed, clips, clip, head, tiles.begin(tile), tiles.rows(tile), projected, mixed);
    }
  });
}

// x [rows, width] -> y; the filter of a step begins `before` steps before it.
inline void filter(ThreadPool& pool, const Filter& f, const Clips& clips, int64_t before, const float* x, float* y) {
  constexpr int kGroup = 8;
  pool.parallel_for(clips.rows(), 16, [&](int64_t first_row, int64_t end_row) {
    std::vector<const float*> steps(f.size);
    for (int64_t row = first_row; row < end_row; row++) {
      const int64_t clip = clips.clip(row), begin = clips.begins[clip], end = clips.begins[clip + 1];
      for (int64_t k = 0; k < f.size; k++) {
        const int64_t step = row - before + k;  // zeros outside of the clip
        steps[k] = step < begin || step >= end ? nullptr : x + step * f.width;
      }
      float* out = y + row * f.width;
      int64_t at = 0;
      for (; at + kGroup * kLanes <= f.width; at += kGroup * kLanes) filter_columns<kGroup>(f, steps.data(), at, out);
      for (; at < f.width; at += kLanes) filter_columns<1>(f, steps.data(), at, out);
    }
  });
}

}  // namespace conure
