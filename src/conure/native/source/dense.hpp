// Products of floats, for what is too small or too sensitive to be rounded to bytes.
//
// A weight [depth, columns] is kept as blocks of 32 columns, [columns / 32, depth, 32]. A tile is up to 12 rows by 32
// columns, whose sums stay in registers. Tiles of 6 by 64 took half as long again: they read twice as much of a weight.
#pragma once

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "vector.hpp"

namespace conure {

constexpr int kDenseVectors = 2, kDenseBlock = kDenseVectors * kLanes;

// Room for floats from the beginning of a line of the cache on: zeros at first.
class Buffer {
 public:
  explicit Buffer(int64_t size) : lines_((size + kLanes - 1) / kLanes) {}
  float* data() { return lines_.data()->values; }
  const float* data() const { return lines_.data()->values; }

 private:
  struct alignas(64) Line {
    float values[kLanes];
  };
  std::vector<Line> lines_;
};

struct Dense {
  const float* values;
  const float* bias;  // [columns]
  int64_t depth, columns;
};

// Rows that lie `stride` floats apart.
template <typename Float>
struct Strided {
  Float* values;
  int64_t stride;
};

// `depth` rows of a weight's block from the first on.
struct Part {
  int64_t first, depth;
};

template <int kRows, bool kRelu>
void dense_tile(Strided<const float> x, const float* block, int64_t depth, const float* bias, Strided<float> y) {
  constexpr int kVectors = kDenseVectors;
  Floats sums[kRows][kVectors];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) sums[r][v] = load(bias + v * kLanes);
  for (int64_t k = 0; k < depth; k++, block += kDenseBlock) {
    Floats columns[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) columns[v] = load(block + v * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; r++) {
      const Floats one = _mm512_set1_ps(x.values[r * x.stride + k]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; v++) sums[r][v] = _mm512_fmadd_ps(columns[v], one, sums[r][v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) {
      const Floats sum = kRelu ? _mm512_max_ps(sums[r][v], _mm512_setzero_ps()) : sums[r][v];
      _mm512_storeu_ps(y.values + r * y.stride + v * kLanes, sum);
    }
}

using DenseTile = void (*)(Strided<const float>, const float*, int64_t, const float*, Strided<float>);

template <bool kRelu, std::size_t... kCounts>
constexpr auto dense_tiles(std::index_sequence<kCounts...>) {
  return std::array<DenseTile, sizeof...(kCounts)>{dense_tile<int(kCounts) + 1, kRelu>...};
}

// y = x times a part of the weight, and its bias; through a ReLU if told.
template <bool kRelu>
void multiply(Strided<const float> x, int64_t rows, const Dense& weight, Part part, Strided<float> y) {
  constexpr int kMostRows = 12;
  static constexpr auto kTiles = dense_tiles<kRelu>(std::make_index_sequence<kMostRows>());
  const int64_t tiles = (rows + kMostRows - 1) / kMostRows;
  for (int64_t column = 0; column < weight.columns; column += kDenseBlock) {
    const float* block = weight.values + column * weight.depth + part.first * kDenseBlock;
    for (int64_t i = 0; i < tiles; i++) {
      const int64_t begin = rows * i / tiles, end = rows * (i + 1) / tiles;
      kTiles[end - begin - 1]({x.values + begin * x.stride, x.stride}, block, part.depth, weight.bias + column,
                              {y.values + begin * y.stride + column, y.stride});
    }
  }
}

}  // namespace conure
