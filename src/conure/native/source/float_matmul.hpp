// float32 matrix products, for layers that are too small or too sensitive for int8.
//
// A weight [depth, columns] is stored in blocks of 32 columns, [columns / 32, depth, 32]. A tile is up to 12 rows by 32
// columns, whose sums stay in registers. Tiles of 6 by 64 were 50 % slower: they read each weight twice as often.
#pragma once

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "vector.hpp"

namespace conure {

constexpr int kFloatVectors = 2, kFloatBlock = kFloatVectors * kLanes;

// Floats aligned to a cache line, initialised to zeros.
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

struct FloatMatrix {
  const float* values;
  const float* bias;  // [columns]
  int64_t depth, columns;
};

// Rows with a stride of `stride` floats.
template <typename Float>
struct Strided {
  Float* values;
  int64_t stride;
};

// Rows first .. first + depth - 1 of a weight's block.
struct DepthRange {
  int64_t first, depth;
};

template <int kRows, bool kRelu>
void float_tile(Strided<const float> x, const float* block, int64_t depth, const float* bias, Strided<float> y) {
  constexpr int kVectors = kFloatVectors;
  Floats sums[kRows][kVectors];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) sums[r][v] = load(bias + v * kLanes);
  for (int64_t k = 0; k < depth; k++, block += kFloatBlock) {
    Floats columns[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) columns[v] = load(block + v * kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; r++) {
      const Floats value = _mm512_set1_ps(x.values[r * x.stride + k]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; v++) sums[r][v] = _mm512_fmadd_ps(columns[v], value, sums[r][v]);
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

using FloatTile = void (*)(Strided<const float>, const float*, int64_t, const float*, Strided<float>);

template <bool kRelu, std::size_t... kCounts>
constexpr auto float_tiles(std::index_sequence<kCounts...>) {
  return std::array<FloatTile, sizeof...(kCounts)>{float_tile<int(kCounts) + 1, kRelu>...};
}

// y = x times a range of the weight's rows plus the bias, then a ReLU if kRelu.
template <bool kRelu>
void multiply(Strided<const float> x, int64_t rows, const FloatMatrix& weight, DepthRange range, Strided<float> y) {
  constexpr int kMaxRows = 12;
  static constexpr auto kTiles = float_tiles<kRelu>(std::make_index_sequence<kMaxRows>());
  const int64_t tiles = (rows + kMaxRows - 1) / kMaxRows;
  for (int64_t column = 0; column < weight.columns; column += kFloatBlock) {
    const float* block = weight.values + column * weight.depth + range.first * kFloatBlock;
    for (int64_t i = 0; i < tiles; i++) {
      const int64_t begin = rows * i / tiles, end = rows * (i + 1) / tiles;
      kTiles[end - begin - 1]({x.values + begin * x.stride, x.stride}, block, range.depth, weight.bias + column,
                              {y.values + begin * y.stride + column, y.stride});
    }
  }
}

}  // namespace conure
