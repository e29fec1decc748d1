// Whole clips, whose steps lie one after another: each step attends to some steps of its clip, and is filtered with
// those around it.
//
// Scores are products of bytes like all others: a query is a row, a key is a column, and so is a distance, and each has
// its own scale. What keys and values of a head need to be laid out for that is made once and serves all its queries.
#pragma once

#include "filter.hpp"
#include "product.hpp"

namespace conure {

struct Clips {
  const int64_t* begins;  // [count + 1], rows
  const int64_t* first;   // [rows], the first step of the clip that a step sees
  const int64_t* end;     // [rows], and the first beyond those
  int64_t count;

  int64_t rows() const { return begins[count]; }
  int64_t clip(int64_t row) const { return std::upper_bound(begins, begins + count, row) - begins - 1; }
};

struct Distances {
  const uint8_t* values;  // [heads, columns / 64, d / 4, 64, 4], as weights are: column c is of distance reach - c
  const float* scales;    // [heads, columns]
  const float* shift;     // [heads * d], what queries for distances have more than those for keys
  int64_t heads, width, columns, reach;
};

inline int64_t blocks(int64_t columns) { return (columns + kBlock - 1) / kBlock; }

// Keys and values of all heads: of a head, each clip begins with a block of its own.
class Laid {
 public:
  Laid(const Distances& d, const Clips& clips) : d_(d), clips_(clips), begins_(clips.count + 1) {
    for (int64_t i = 0; i < clips.count; i++)
      begins_[i + 1] = begins_[i] + blocks(clips.begins[i + 1] - clips.begins[i]) * kBlock;
    const int64_t columns = d.heads * begins_[clips.count];
    static thread_local std::vector<uint8_t> keys;
    static thread_local std::vector<float> scales, values;
    if (int64_t(keys.size()) < columns * d.width + kLine) keys.resize(columns * d.width + kLine);
    if (int64_t(scales.size()) < columns) scales.resize(columns);
    if (int64_t(values.size()) < columns * d.width + kLanes) values.resize(columns * d.width + kLanes);
    keys_ = keys.data() + (-uintptr_t(keys.data()) & (kLine - 1));
    values_ = values.data() + (-uintptr_t(values.data()) & (kLine - 1)) / sizeof(float);
    scales_ = scales.data();
  }

  Weight keys(int64_t clip, int64_t head) const {
    const int64_t at = place(clip, head);
    return {keys_ + at * d_.width, scales_ + at, nullptr, d_.width, begins_[clip + 1] - begins_[clip]};
  }

  const float* values(int64_t clip, int64_t head) const { return values_ + place(clip, head) * d_.width; }

  // projected [rows, 3 * heads * d] holds queries, keys and values.
  void take(int64_t clip, int64_t head, const float* projected) {
    const int64_t all = d_.heads * d_.width, at = place(clip, head), count = clips_.begins[clip + 1] - clips_.begins[clip];
    const float* row = projected + clips_.begins[clip] * 3 * all + head * d_.width;
    for (int64_t i = 0; i < count; i++, row += 3 * all) {
      const int64_t block = i / kBlock * kBlock;
      int32_t sum;
      auto* quads = reinterpret_cast<int8_t*>(keys_ + (at + block) * d_.width + (i - block) * kQuad);
      quantise(row + all, d_.width, quads, kBlock * kQuad, scales_[at + i], sum);
      std::memcpy(values_ + (at + i) * d_.width, row + 2 * all, d_.width * sizeof(float));
    }
    const __m512i offset = _mm512_set1_epi8(char(kOffset));
    uint8_t* bytes = keys_ + at * d_.width;
    for (int64_t i = 0; i < blocks(count) * kBlock * d_.width; i += kLine)
      _mm512_storeu_si512(bytes + i, _mm512_xor_si512(_mm512_loadu_si512(bytes + i), offset));
  }

 private:
  const Distances& d_;
  const Clips& clips_;
  std::vector<int64_t> begins_;
  uint8_t* keys_;
  float *scales_, *values_;

  int64_t place(int64_t clip, int64_t head) const { return head * begins_[clips_.count] + begins_[clip]; }
};

// A tile of queries of one head.
class Queries {
 public:
  Queries(const Distances& distances, int64_t longest) : d_(distances) {
    const int64_t columns = (blocks(longest) + 2) * kBlock, bytes = kTileRows * d_.width;
    static thread_local std::vector<int8_t> rows;
    static thread_local std::vector<float> floats;
    rows.resize(2 * bytes);
    if (int64_t(floats.size()) < 3 * kTileRows * columns + d_.width + kLanes)
      floats.resize(3 * kTileRows * columns + d_.width + kLanes);
    own_ = rows.data(), placed_ = own_ + bytes;
    scores_ = floats.data(), near_ = scores_ + kTileRows * columns, weights_ = near_ + kTileRows * columns;
    shifted_ = weights_ + kTileRows * columns + kLanes;
    columns_ = columns;
  }

  // Steps begin.. of the clip, `count` of them; rows are of the clip.
  void attend(const Laid& laid, const Clips& clips, int64_t clip, int64_t head, int64_t begin, int64_t count,
              const float* projected, float* mixed) {
    const int64_t all = d_.heads * d_.width, row = clips.begins[clip] + begin;
    const int64_t *first = clips.first + row, *end = clips.end + row;
    const int64_t low = *std::min_element(first, first + count), high = *std::max_element(end, end + count);
    split(projected + row * 3 * all + head * d_.width, 3 * all, count, head);
    const int64_t at = low / kBlock, columns = columns_;
    multiply(own_, own_scales_, own_sums_, count, laid.keys(clip, head), at, blocks(high) - at, scores_);
    // Of query i, key j is in column reach - i + j.
    const int64_t left = d_.reach - (begin + count - 1) + low, right = d_.reach - begin + high, near = left / kBlock;
    const Weight table{d_.values + head * d_.columns * d_.width, d_.scales + head * d_.columns, nullptr, d_.width, d_.columns};
    multiply(placed_, placed_scales_, placed_sums_, count, table, near, blocks(right) - near, near_);
    const int64_t depth = high - low;
    for (int64_t i = 0; i < count; i++) {
      const float* scores = scores_ + i * columns + first[i] - at * kBlock;
      const float* distances = near_ + i * columns + d_.reach - (begin + i) + first[i] - near * kBlock;
      weigh(scores, distances, first[i] - low, end[i] - first[i], depth, weights_ + i * depth);
    }
    mix(count, depth, laid.values(clip, head) + low * d_.width, mixed + row * all + head * d_.width, all);
  }

 private:
  const Distances& d_;
  int8_t *own_, *placed_;
  float own_scales_[kTileRows], placed_scales_[kTileRows];
  int32_t own_sums_[kTileRows], placed_sums_[kTileRows];
  float *scores_, *near_, *weights_, *shifted_;
  int64_t columns_;

  void split(const float* query, int64_t apart, int64_t count, int64_t head) {
    const float* shift = d_.shift + head * d_.width;
    for (int64_t i = 0; i < count; i++, query += apart) {
      for (int64_t k = 0; k < d_.width; k += kLanes)
        _mm512_storeu_ps(shifted_ + k, _mm512_add_ps(load(query + k), load(shift + k)));
      quantise(query, d_.width, own_ + i * kQuad, count * kQuad, own_scales_[i], own_sums_[i]);
      quantise(shifted_, d_.width, placed_ + i * kQuad, count * kQuad, placed_scales_[i], placed_sums_[i]);
    }
  }

  void multiply(int8_t* rows, float* scales, int32_t* sums, int64_t count, const Weight& weight, int64_t first,
                int64_t number, float* to) const {
    const Quantised x{rows, scales, sums};
    const Result result{to - first * kBlock, columns_, After::kNothing};
    for (int64_t block = first; block < first + number; block++)
      kTiles[count - 1](x, 0, weight, block * kBlock, nullptr, result);
  }

  // Of `seen` keys from `skipped` on, weights [depth]; others have none. Room for a vector follows.
  static void weigh(const float* scores, const float* distances, int64_t skipped, int64_t seen, int64_t depth,
                    float* weights) {
    for (int64_t j = 0; j < skipped; j++) weights[j] = 0;
    float* line = weights + skipped;
    for (int64_t j = 0; j < seen; j += kLanes)
      _mm512_storeu_ps(line + j, _mm512_add_ps(load(scores + j), load(distances + j)));
    softmax(line, seen);
    for (int64_t j = skipped + seen; j < depth; j++) weights[j] = 0;
  }

  void mix(int64_t count, int64_t depth, const float* values, float* to, int64_t apart) const {
    constexpr int kRows = 3, kWide = 8;
    const float* weights = weights_;
    for (; count >= kRows; count -= kRows, weights += kRows * depth, to += kRows * apart)
      mix<kRows, kWide>(weights, depth, values, to, apart);
    for (; count > 0; count--, weights += depth, to += apart) mix<1, kWide>(weights, depth, values, to, apart);
  }

  template <int kRows, int kWide>
  void mix(const float* weights, int64_t depth, const float* values, float* to, int64_t apart) const {
    int64_t left = d_.width / kLanes;
    for (; left > kWide; left -= kWide, values += kWide * kLanes, to += kWide * kLanes)
      combine<kRows, kWide>(weights, depth, values, d_.width, to, apart);
    combine_rest<kRows, kWide>(weights, depth, values, d_.width, left, to, apart);
  }
};

// projected [rows, 3 * heads * d] -> mixed [rows, heads * d].
inline void attend(Pool& pool, const Distances& distances, const Clips& clips, const float* projected, float* mixed) {
  constexpr int64_t kTogether = 8;  // tiles
  Laid laid(distances, clips);
  const int64_t heads = distances.heads;
  pool.each(clips.count * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) laid.take(i / heads, i % heads, projected);
  });
  std::vector<std::array<int64_t, 3>> tasks;  // clip, head, first tile
  int64_t longest = 0;
  for (int64_t clip = 0; clip < clips.count; clip++) {
    const int64_t steps = clips.begins[clip + 1] - clips.begins[clip];
    longest = std::max(longest, steps);
    for (int64_t head = 0; head < heads; head++)
      for (int64_t tile = 0; tile < Tiles(steps).count; tile += kTogether) tasks.push_back({clip, head, tile});
  }
  pool.each(tasks.size(), 1, [&](int64_t begin, int64_t end) {
    Queries queries(distances, longest);
    for (int64_t i = begin; i < end; i++) {
      const auto [clip, head, first] = tasks[i];
      const Tiles tiles(clips.begins[clip + 1] - clips.begins[clip]);
      for (int64_t tile = first; tile < std::min(first + kTogether, tiles.count); tile++)
        queries.attend(laid, clips, clip, head, tiles.begin(tile), tiles.rows(tile), projected, mixed);
    }
  });
}

// x [rows, width] -> y; a filter begins `before` steps before the one it is for.
inline void filter(Pool& pool, const Filter& f, const Clips& clips, int64_t before, const float* x, float* y) {
  constexpr int kPart = 8;
  pool.each(clips.rows(), 16, [&](int64_t from, int64_t to) {
    std::vector<const float*> steps(f.size);
    for (int64_t row = from; row < to; row++) {
      const int64_t clip = clips.clip(row), begin = clips.begins[clip], end = clips.begins[clip + 1];
      for (int64_t k = 0; k < f.size; k++) {
        const int64_t step = row - before + k;  // outside of a clip there is silence
        steps[k] = step < begin || step >= end ? nullptr : x + step * f.width;
      }
      float* out = y + row * f.width;
      int64_t at = 0;
      for (; at + kPart * kLanes <= f.width; at += kPart * kLanes) weigh<kPart>(f, steps.data(), at, out);
      for (; at < f.width; at += kLanes) weigh<1>(f, steps.data(), at, out);
    }
  });
}

}  // namespace conure
