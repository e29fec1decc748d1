// Layer normalisation and int8 quantisation of activation rows.
#pragma once

#include <cmath>

#include "thread_pool.hpp"
#include "vector.hpp"

namespace conure {

// Layer normalisation of a row; the identity if weight is null.
struct Norm {
  const float* weight;  // [width]
  const float* bias;    // [width]
  float epsilon;
};

inline void normalise(const float* x, int64_t width, const Norm& norm, float* y) {
  Floats sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < width; i += kLanes) sum = _mm512_add_ps(sum, load(x + i));
  const Floats mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
  for (int64_t i = 0; i < width; i += kLanes) {
    const Floats d = _mm512_sub_ps(load(x + i), mean);
    squares = _mm512_fmadd_ps(d, d, squares);
  }
  const Floats scale = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / width + norm.epsilon));
  for (int64_t i = 0; i < width; i += kLanes) {
    const Floats d = _mm512_mul_ps(_mm512_sub_ps(load(x + i), mean), scale);
    _mm512_storeu_ps(y + i, _mm512_fmadd_ps(d, load(norm.weight + i), load(norm.bias + i)));
  }
}

constexpr int kTileRows = 6, kQuad = 4;

// Splits rows into tiles of nearly equal size, at most kTileRows.
struct Tiles {
  int64_t total, count;
  explicit Tiles(int64_t rows) : total(rows), count((rows + kTileRows - 1) / kTileRows) {}
  int64_t begin(int64_t tile) const { return total * tile / count; }
  int64_t rows(int64_t tile) const { return begin(tile + 1) - begin(tile); }
};

// int8 rows: x ~ values * scale; `sums` are the sums of the rows. Values are stored by tile: [width / 4, rows, 4].
struct Quantised {
  int8_t* values;
  float* scales;
  int32_t* sums;
};

constexpr float kLevels = 127.0f, kSmallest = 1e-20f;

// Writes a row into the groups of four of its tile, with a stride of `quad_stride` bytes.
inline void quantise(const float* x, int64_t width, int8_t* quad, int64_t quad_stride, float& scale, int32_t& sum) {
  Floats largest = _mm512_set1_ps(kSmallest);
  for (int64_t i = 0; i < width; i += kLanes) largest = _mm512_max_ps(largest, _mm512_abs_ps(load(x + i)));
  scale = _mm512_reduce_max_ps(largest) / kLevels;
  const Floats inverse = _mm512_set1_ps(1.0f / scale);
  __m512i total = _mm512_setzero_si512();
  for (int64_t i = 0; i < width; i += kLanes) {
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(load(x + i), inverse));
    total = _mm512_add_epi32(total, rounded);
    const __m128i bytes = _mm512_cvtsepi32_epi8(rounded);
    *reinterpret_cast<int32_t*>(quad) = _mm_extract_epi32(bytes, 0);
    *reinterpret_cast<int32_t*>(quad + quad_stride) = _mm_extract_epi32(bytes, 1);
    *reinterpret_cast<int32_t*>(quad + 2 * quad_stride) = _mm_extract_epi32(bytes, 2);
    *reinterpret_cast<int32_t*>(quad + 3 * quad_stride) = _mm_extract_epi32(bytes, 3);
    quad += kQuad * quad_stride;
  }
  sum = _mm512_reduce_add_epi32(total);
}

// x [rows, width]: normalised if the norm has a weight, SiLU if `gated`, then quantised row by row.
inline void quantise(ThreadPool& pool, const float* x, int64_t rows, int64_t width, const Norm& norm, bool gated,
                     const Quantised& out) {
  const Tiles tiles(rows);
  pool.parallel_for(tiles.count, 1, [&](int64_t from_tile, int64_t end_tile) {
    static thread_local std::vector<float> scratch;
    scratch.resize(width);
    for (int64_t tile = from_tile; tile < end_tile; tile++) {
      const int64_t begin = tiles.begin(tile), count = tiles.rows(tile);
      for (int64_t row = begin; row < begin + count; row++) {
        const float* from = x + row * width;
        if (norm.weight) {
          normalise(from, width, norm, scratch.data());
          from = scratch.data();
        }
        if (gated) {
          for (int64_t i = 0; i < width; i += kLanes) _mm512_storeu_ps(scratch.data() + i, silu(load(from + i)));
          from = scratch.data();
        }
        int8_t* quads = out.values + begin * width + (row - begin) * kQuad;
        quantise(from, width, quads, count * kQuad, out.scales[row], out.sums[row]);
      }
    }
  });
}

}  // namespace conure
