// Whole clips, whose steps lie one after another: each step attends to some steps of its clip, and is filtered with
// those around it.
//
// Scores are products of bytes like all others: a query is a row, a key is a column, and so is a distance, and each has
// its own scale. Values are mixed in 16 bits, which is twice as fast as floats: bytes would lose what many steps that are
// hardly looked at say together. How keys and values of a head are laid out for that is made once for all its queries.
#pragma once

#include "filter.hpp"
#include "product.hpp"
#include "kept.hpp"

namespace conure {

struct Clips {
  const int64_t* begins;  // [count + 1], rows
  const int64_t* first;   // [rows], the first step of the clip that a step sees
  const int64_t* end;     // [rows], and the first beyond those
  int64_t count;
  const int64_t* tokens;  // [count + 1] of `places`, or null
  const int64_t* places;  // rows that every step of their clip sees beside its stretch, however far
  const float* beside;    // [rows, heads, most], scores of those
  int64_t most;

  int64_t beyond(int64_t clip) const { return tokens ? tokens[clip + 1] - tokens[clip] : 0; }
  int64_t rows() const { return begins[count]; }
  int64_t clip(int64_t row) const { return std::upper_bound(begins, begins + count, row) - begins - 1; }
};

struct Distances {
  const uint8_t* values;  // [heads, columns / 64, d / 4, 64, 4], as weights are: column c is of distance reach - c
  const float* scales;    // [heads, columns]
  const float* shift;     // [heads * d], what queries for distances have more than those for keys
  int64_t heads, width, columns, reach;
};

// A value is in +-kValueLevels and a row's weights, none above kWeightLevels, add up to kWeightSum: the sums of products
// stay below 2^31.
constexpr float kValueLevels = 1023, kWeightLevels = 32767, kWeightSum = 1 << 20;
constexpr int64_t kSoon = 4;

// Rows of a head lie pages apart, and the processor itself does not look beyond a page.
inline void fetch(const float* row, int64_t width) {
  for (int64_t k = 0; k < width; k += kLanes) _mm_prefetch((const char*)(row + k), _MM_HINT_T0);
}

inline int64_t blocks(int64_t columns) { return (columns + kBlock - 1) / kBlock; }

// Keys and values of all heads: of a head, each clip begins with a block of its own.
class Laid {
 public:
  Laid(const Distances& d, const Clips& clips) : d_(d), clips_(clips), begins_(clips.count + 1) {
    for (int64_t i = 0; i < clips.count; i++)
      begins_[i + 1] = begins_[i] + blocks(clips.begins[i + 1] - clips.begins[i]) * kBlock;
    const int64_t columns = d.heads * begins_[clips.count];
    static thread_local Kept<uint8_t> keys;
    static thread_local Kept<int32_t> values;
    static thread_local Kept<float> scales, value_scales;
    keys_ = keys.of(columns * d.width), scales_ = scales.of(columns);
    values_ = values.of(columns / 2 * d.width), value_scales_ = value_scales.of(d.heads * clips.count * d.width);
  }

  Weight keys(int64_t clip, int64_t head) const {
    const int64_t at = place(clip, head);
    return {keys_ + at * d_.width, scales_ + at, nullptr, d_.width, begins_[clip + 1] - begins_[clip]};
  }

  // [steps / 2, d], of two steps each.
  const int32_t* values(int64_t clip, int64_t head) const { return values_ + place(clip, head) / 2 * d_.width; }
  const float* value_scales(int64_t clip, int64_t head) const {
    return value_scales_ + (head * clips_.count + clip) * d_.width;
  }

  // projected [rows, 3 * heads * d] holds queries, keys and values.
  void take(int64_t clip, int64_t head, const float* projected) {
    const int64_t all = d_.heads * d_.width, at = place(clip, head), count = clips_.begins[clip + 1] - clips_.begins[clip];
    const float* row = projected + clips_.begins[clip] * 3 * all + head * d_.width;
    for (int64_t i = 0; i < count; i++, row += 3 * all) {
      fetch(row + (1 + 3 * kSoon) * all, d_.width);
      const int64_t block = i / kBlock * kBlock;
      int32_t sum;
      auto* quads = reinterpret_cast<int8_t*>(keys_ + (at + block) * d_.width + (i - block) * kQuad);
      quantise(row + all, d_.width, quads, kBlock * kQuad, scales_[at + i], sum);
    }
    const __m512i offset = _mm512_set1_epi8(char(kOffset));
    uint8_t* bytes = keys_ + at * d_.width;
    for (int64_t i = 0; i < blocks(count) * kBlock * d_.width; i += kLine)
      _mm512_storeu_si512(bytes + i, _mm512_xor_si512(_mm512_loadu_si512(bytes + i), offset));
    take_values(clip, head, projected + clips_.begins[clip] * 3 * all + 2 * all + head * d_.width, 3 * all, count);
  }

 private:
  const Distances& d_;
  const Clips& clips_;
  std::vector<int64_t> begins_;
  uint8_t* keys_;
  int32_t* values_;
  float *scales_, *value_scales_;

  void take_values(int64_t clip, int64_t head, const float* rows, int64_t apart, int64_t count) {
    float* scales = value_scales_ + (head * clips_.count + clip) * d_.width;
    for (int64_t k = 0; k < d_.width; k += kLanes) _mm512_storeu_ps(scales + k, _mm512_set1_ps(kSmallest));
    for (int64_t i = 0; i < count; i++) {
      fetch(rows + (i + kSoon) * apart, d_.width);
      for (int64_t k = 0; k < d_.width; k += kLanes)
        _mm512_storeu_ps(scales + k, _mm512_max_ps(load(scales + k), _mm512_abs_ps(load(rows + i * apart + k))));
    }
    for (int64_t k = 0; k < d_.width; k += kLanes)
      _mm512_storeu_ps(scales + k, _mm512_mul_ps(load(scales + k), _mm512_set1_ps(1 / kValueLevels)));
    int32_t* to = values_ + place(clip, head) / 2 * d_.width;
    for (int64_t i = 0; i < count; i += 2, to += d_.width)
      for (int64_t k = 0; k < d_.width; k += kLanes) {
        const Floats inverse = _mm512_div_ps(_mm512_set1_ps(1), load(scales + k));
        const float* row = rows + i * apart + k;
        const __m512i one = _mm512_cvtps_epi32(_mm512_mul_ps(load(row), inverse));
        __m512i next = _mm512_setzero_si512();
        if (i + 1 < count) next = _mm512_cvtps_epi32(_mm512_mul_ps(load(row + apart), inverse));
        const __m512i first = _mm512_and_si512(one, _mm512_set1_epi32(0xffff));
        _mm512_storeu_si512(to + k, _mm512_or_si512(first, _mm512_slli_epi32(next, 16)));
      }
  }

  int64_t place(int64_t clip, int64_t head) const { return head * begins_[clips_.count] + begins_[clip]; }
};

// A tile of queries of one head.
class Queries {
 public:
  Queries(const Distances& distances, int64_t longest, int64_t most) : d_(distances), most_(most) {
    const int64_t columns = (blocks(longest) + 2) * kBlock, bytes = kTileRows * d_.width;
    static thread_local Kept<int8_t> rows;
    static thread_local Kept<float> scores, near, line, shifted, shares;
    static thread_local Kept<int16_t> weights;
    own_ = rows.of(2 * bytes), placed_ = own_ + bytes;
    scores_ = scores.of(kTileRows * columns), near_ = near.of(kTileRows * columns);
    line_ = line.of(columns + most + kLanes), shifted_ = shifted.of(d_.width);
    shares_ = shares.of(kTileRows * most + 1);
    weights_ = weights.of(kTileRows * columns + 2 * kLanes);
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
    const int64_t place = head * d_.columns;
    const Weight table{d_.values + place * d_.width, d_.scales + place, nullptr, d_.width, d_.columns};
    multiply(placed_, placed_scales_, placed_sums_, count, table, near, blocks(right) - near, near_);
    const int64_t from = low / 2, pairs = (high + 1) / 2 - from;
    for (int64_t i = 0; i < count; i++) {
      const float* scores = scores_ + i * columns + first[i] - at * kBlock;
      const float* distances = near_ + i * columns + d_.reach - (begin + i) + first[i] - near * kBlock;
      int16_t* weights = weights_ + 2 * i * pairs;
      const Beside beside{clips.beside + ((row + i) * d_.heads + head) * most_, clips.beyond(clip), shares_ + i * most_};
      weight_scales_[i] = weigh(scores, distances, first[i] - 2 * from, end[i] - first[i], 2 * pairs, beside, weights);
    }
    const Values values{laid.values(clip, head) + from * d_.width, laid.value_scales(clip, head), pairs};
    mix(count, values, mixed + row * all + head * d_.width, all);
    for (int64_t k = 0; k < clips.beyond(clip); k++) {
      const float* value = projected + clips.places[clips.tokens[clip] + k] * 3 * all + 2 * all + head * d_.width;
      for (int64_t i = 0; i < count; i++)
        add(value, shares_[i * most_ + k], mixed + (row + i) * all + head * d_.width);
    }
  }

 private:
  struct Values {
    const int32_t* pairs;  // [count, d]
    const float* scales;   // [d]
    int64_t count;
  };

  // Steps that a query sees beyond its stretch: scores, how many, and room for the part that each has in it.
  struct Beside {
    const float* scores;
    int64_t count;
    float* shares;
  };

  const Distances& d_;
  const int64_t most_;
  int8_t *own_, *placed_;
  float own_scales_[kTileRows], placed_scales_[kTileRows], weight_scales_[kTileRows];
  int32_t own_sums_[kTileRows], placed_sums_[kTileRows];
  float *scores_, *near_, *line_, *shifted_, *shares_;
  int16_t* weights_;
  int64_t columns_;

  void split(const float* query, int64_t apart, int64_t count, int64_t head) {
    const float* shift = d_.shift + head * d_.width;
    for (int64_t i = 0; i < count; i++, query += apart) {
      fetch(query + kTileRows * apart, d_.width);
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

  // Of `seen` keys from `skipped` on, weights [depth]; others have none. Room for a vector follows. -> their scale.
  float weigh(const float* scores, const float* distances, int64_t skipped, int64_t seen, int64_t depth,
              const Beside& beside, int16_t* weights) {
    for (int64_t j = 0; j < seen; j += kLanes)
      _mm512_storeu_ps(line_ + j, _mm512_add_ps(load(scores + j), load(distances + j)));
    for (int64_t k = 0; k < beside.count; k++) line_[seen + k] = beside.scores[k];
    const float sum = exponents(line_, seen + beside.count), levels = std::min(kWeightLevels, kWeightSum / sum);
    for (int64_t k = 0; k < beside.count; k++) beside.shares[k] = line_[seen + k] / sum;
    std::fill_n(weights, skipped, 0);
    for (int64_t j = 0; j < seen; j += kLanes) {
      const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(load(line_ + j), _mm512_set1_ps(levels)));
      _mm256_storeu_si256((__m256i*)(weights + skipped + j), _mm512_cvtepi32_epi16(rounded));
    }
    if (skipped + seen < depth) std::fill(weights + skipped + seen, weights + depth, 0);
    return 1 / (levels * sum);
  }

  void add(const float* value, float share, float* to) const {
    for (int64_t k = 0; k < d_.width; k += kLanes)
      _mm512_storeu_ps(to + k, _mm512_fmadd_ps(_mm512_set1_ps(share), load(value + k), load(to + k)));
  }

  void mix(int64_t count, const Values& values, float* to, int64_t apart) const {
    constexpr int kRows = 3;
    int64_t row = 0;
    for (; row + kRows <= count; row += kRows) mix_rows<kRows>(row, values, to + row * apart, apart);
    for (; row < count; row++) mix_rows<1>(row, values, to + row * apart, apart);
  }

  template <int kRows>
  void mix_rows(int64_t row, const Values& values, float* to, int64_t apart) const {
    constexpr int kWide = 8;
    int64_t at = 0;
    for (; at + kWide * kLanes <= d_.width; at += kWide * kLanes) mix_part<kRows, kWide>(row, values, at, to, apart);
    for (; at < d_.width; at += kLanes) mix_part<kRows, 1>(row, values, at, to, apart);
  }

  template <int kRows, int kWide>
  void mix_part(int64_t row, const Values& values, int64_t at, float* to, int64_t apart) const {
    const int32_t* weights = reinterpret_cast<const int32_t*>(weights_) + row * values.count;
    const int32_t* pair = values.pairs + at;
    __m512i sums[kRows][kWide];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int v = 0; v < kWide; v++) sums[r][v] = _mm512_setzero_si512();
    for (int64_t k = 0; k < values.count; k++, pair += d_.width) {
      __m512i both[kRows];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) both[r] = _mm512_set1_epi32(weights[r * values.count + k]);
#pragma GCC unroll 8
      for (int v = 0; v < kWide; v++) {
        const __m512i steps = _mm512_loadu_si512(pair + v * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; r++) sums[r][v] = _mm512_dpwssd_epi32(sums[r][v], steps, both[r]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
      for (int v = 0; v < kWide; v++) {
        const int64_t column = at + v * kLanes;
        const Floats scales = _mm512_mul_ps(_mm512_set1_ps(weight_scales_[row + r]), load(values.scales + column));
        _mm512_storeu_ps(to + r * apart + column, _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][v]), scales));
      }
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
    Queries queries(distances, longest, clips.most);
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
