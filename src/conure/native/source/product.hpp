// Products of bytes: activations with a sign by weights without one, summed in 32 bits (VNNI).
//
// A weight [columns, depth] is kept as blocks of 32 columns: [columns / 32, depth / 4, 32, 4], each number with 128
// added to it. What that adds to a sum is 128 times the sum of a row's bytes, which is taken away at the end.
//
// A tile is up to 14 rows by 32 columns, which is what the registers hold. Its sums stay there for the whole depth.
// A block of weights is read from memory once and by all tiles from the cache; while they are at work, what the
// next block needs is fetched.
#pragma once

#include <algorithm>
#include <utility>

#include "rows.hpp"

namespace conure {

constexpr int kTileRows = 14, kBlock = 32, kQuad = 4, kOffset = 128;

enum class After : int32_t { kNothing, kSilu, kRelu, kGate, kAdd };

struct Weight {
  const uint8_t* values;
  const float* scales;  // [columns]
  const float* bias;    // [columns], or none
  int64_t depth, columns;
};

// Results [rows, width]. With a gate, of 32 columns the first 16 are values and the others their gates, and the
// width is half of the columns. kAdd adds to what is there.
struct Result {
  float* values;
  int64_t stride;
  After after;
};

inline void finish(__m512i left, __m512i right, float scale, int32_t sum, const Weight& weight, int64_t column,
                   const Result& to, int64_t row) {
  const __m512i offset = _mm512_set1_epi32(sum * kOffset);
  Floats y[2];
  const __m512i sums[2] = {left, right};
  for (int i = 0; i < 2; i++) {
    const int64_t at = column + i * kLanes;
    const Floats scales = _mm512_mul_ps(_mm512_set1_ps(scale), load(weight.scales + at));
    y[i] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(sums[i], offset)), scales);
    if (weight.bias) y[i] = _mm512_add_ps(y[i], load(weight.bias + at));
  }
  float* out = to.values + row * to.stride;
  if (to.after == After::kGate) {
    _mm512_storeu_ps(out + column / 2, _mm512_mul_ps(y[0], sigmoid(y[1])));
    return;
  }
  for (int i = 0; i < 2; i++) {
    float* at = out + column + i * kLanes;
    if (to.after == After::kSilu) y[i] = silu(y[i]);
    if (to.after == After::kRelu) y[i] = _mm512_max_ps(y[i], _mm512_setzero_ps());
    if (to.after == After::kAdd) y[i] = _mm512_add_ps(y[i], load(at));
    _mm512_storeu_ps(at, y[i]);
  }
}

// `next` is fetched line by line as the depth goes by, `ahead` lines in all.
template <int kRows>
void tile(const Quantised& x, int64_t row, const Weight& weight, int64_t column, const uint8_t* next, int64_t ahead,
          const Result& to) {
  __m512i sums[kRows][2];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r++) sums[r][0] = sums[r][1] = _mm512_setzero_si512();
  const int8_t* rows = x.values + row * x.stride;
  const uint8_t* block = weight.values + column * weight.depth;
  const int64_t quads = weight.depth / kQuad;
  for (int64_t q = 0; q < quads; q++) {
    const __m512i left = _mm512_loadu_si512(block + q * kBlock * kQuad);
    const __m512i right = _mm512_loadu_si512(block + q * kBlock * kQuad + 64);
    if (q < ahead) _mm_prefetch((const char*)next + q * 64, _MM_HINT_T1);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; r++) {
      const __m512i four = _mm512_set1_epi32(*(const int32_t*)(rows + r * x.stride + q * kQuad));
      sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], left, four);
      sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], right, four);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r++)
    finish(sums[r][0], sums[r][1], x.scales[row + r], x.sums[row + r], weight, column, to, row + r);
}

using Tile = void (*)(const Quantised&, int64_t, const Weight&, int64_t, const uint8_t*, int64_t, const Result&);

template <std::size_t... kCounts>
constexpr auto tiles(std::index_sequence<kCounts...>) {
  return std::array<Tile, sizeof...(kCounts)>{tile<int(kCounts) + 1>...};
}

inline constexpr auto kTiles = tiles(std::make_index_sequence<kTileRows>());

inline void multiply(Pool& pool, const Quantised& x, int64_t rows, const Weight& weight, const Result& to) {
  const int64_t count = (rows + kTileRows - 1) / kTileRows, lines = weight.depth * kBlock / 64;
  pool.each(weight.columns / kBlock, 1, [&](int64_t block, int64_t) {
    const uint8_t* next = weight.values + (block + 1) * kBlock * weight.depth;
    const bool last = (block + 1) * kBlock >= weight.columns;
    for (int64_t i = 0; i < count; i++) {
      // Tiles of a size, as far as that goes.
      const int64_t begin = rows * i / count, end = rows * (i + 1) / count;
      const int64_t from = lines * i / count, ahead = last ? 0 : lines * (i + 1) / count - from;
      kTiles[end - begin - 1](x, begin, weight, block * kBlock, next + from * 64, ahead, to);
    }
  });
}

}  // namespace conure
