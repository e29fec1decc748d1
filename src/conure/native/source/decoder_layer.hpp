// Layers of the decoder for a few rows, where the cost is reading the weights from memory or an outer cache.
//
// A weight is stored in blocks of 64 columns: int8 as in int8_matmul.hpp, float32 as [columns / 64, depth, 64]. A block
// is read once for all rows, in tiles of up to 6 rows; the first tile prefetches the weights a few kB ahead. The caller
// processes a block's sums in a callback, so that no second loop has to read them again.
#pragma once

#include <array>
#include <utility>

#include "int8_matmul.hpp"
#include "reused_buffer.hpp"

namespace conure::greedy {

struct Layer {
  const void* values;   // int8 if there are scales, else float32
  const float* scales;  // [columns], or null
  const float* bias;    // [columns]
  int64_t depth, columns;
};

// Input rows of a layer: float32 [count, depth], and for int8 layers the quantised rows with their scales.
struct Inputs {
  const float* floats;
  const int8_t* bytes;
  const float* scales;
  const int32_t* sums;
  int64_t count;
};

class InputRows {
 public:
  // fill(row, out) writes one row of the layer's depth.
  template <typename Fill>
  Inputs prepare(ThreadPool& pool, int64_t count, const Layer& layer, const Fill& fill) {
    constexpr int64_t kGrain = 8;
    const int64_t depth = layer.depth;
    float *floats = floats_.reserve(count * depth), *scales = scales_.reserve(count);
    int8_t* bytes = bytes_.reserve(count * depth);
    int32_t* sums = sums_.reserve(count);
    pool.parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        fill(row, floats + row * depth);
        if (layer.scales) quantise(floats + row * depth, depth, bytes + row * depth, kQuad, scales[row], sums[row]);
      }
    });
    return {floats, bytes, scales, sums, count};
  }

 private:
  ReusedBuffer<float> floats_, scales_;
  ReusedBuffer<int8_t> bytes_;
  ReusedBuffer<int32_t> sums_;
};

constexpr int64_t kPrefetchBytes = 4096, kTaskBytes = 1 << 16;

// Products of kRows rows with a block of columns -> [kRows, 64].
template <int kRows, bool kFetches>
void int8_tile(const Inputs& x, int64_t row, const Layer& layer, int64_t column, float* out) {
  __m512i sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) sums[r][v] = _mm512_setzero_si512();
  const int64_t depth = layer.depth;
  const int8_t* quad = x.bytes + row * depth;
  const uint8_t* block = static_cast<const uint8_t*>(layer.values) + column * depth;
  for (int64_t q = 0; q < depth; q += kQuad, block += kBlock * kQuad) {
    __m512i columns[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) {
      if (kFetches) _mm_prefetch((const char*)(block + kPrefetchBytes + v * kLine), _MM_HINT_T1);
      columns[v] = _mm512_loadu_si512(block + v * kLine);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      const __m512i four = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(quad + r * depth + q));
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], columns[v], four);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++) {
    const __m512i offset = _mm512_set1_epi32(x.sums[row + r] * kOffset);
    const Floats scale = _mm512_set1_ps(x.scales[row + r]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) {
      const int64_t at = column + v * kLanes;
      const Floats sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[r][v], offset));
      const Floats y = _mm512_mul_ps(_mm512_mul_ps(sum, load(layer.scales + at)), scale);
      _mm512_store_ps(out + r * kBlock + v * kLanes, _mm512_add_ps(y, load(layer.bias + at)));
    }
  }
}

template <int kRows, bool kFetches>
void float_tile(const Inputs& x, int64_t row, const Layer& layer, int64_t column, float* out) {
  Floats sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) sums[r][v] = load(layer.bias + column + v * kLanes);
  const int64_t depth = layer.depth;
  const float* input = x.floats + row * depth;
  const float* block = static_cast<const float*>(layer.values) + column * depth;
  for (int64_t k = 0; k < depth; k++, block += kBlock) {
    Floats columns[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) {
      if (kFetches) _mm_prefetch((const char*)(block + v * kLanes) + kPrefetchBytes, _MM_HINT_T1);
      columns[v] = load(block + v * kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      const Floats value = _mm512_set1_ps(input[r * depth + k]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) sums[r][v] = _mm512_fmadd_ps(columns[v], value, sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) _mm512_store_ps(out + r * kBlock + v * kLanes, sums[r][v]);
}

using Tile = void (*)(const Inputs&, int64_t, const Layer&, int64_t, float*);
using TilesByRows = std::array<Tile, kTileRows>;

template <bool kFetches, std::size_t... kCounts>
constexpr std::array<TilesByRows, 2> tiles(std::index_sequence<kCounts...>) {
  return {TilesByRows{float_tile<int(kCounts) + 1, kFetches>...},
          TilesByRows{int8_tile<int(kCounts) + 1, kFetches>...}};
}

inline constexpr auto kTiles = tiles<false>(std::make_index_sequence<kTileRows>());
inline constexpr auto kFetchingTiles = tiles<true>(std::make_index_sequence<kTileRows>());

// Calls then(row, column, sums) for each row and block of 64 columns, in any order.
template <typename Callback>
void multiply(ThreadPool& pool, const Inputs& x, const Layer& layer, const Callback& callback) {
  const Tiles tiles(x.count);
  const bool bytes = layer.scales;
  const int64_t size = kBlock * layer.depth * (bytes ? 1 : sizeof(float));
  pool.parallel_for(layer.columns / kBlock, std::max<int64_t>(kTaskBytes / size, 1), [&](int64_t first, int64_t end) {
    alignas(kLine) float sums[kTileRows * kBlock];
    for (int64_t column = first * kBlock; column < end * kBlock; column += kBlock)
      for (int64_t i = 0; i < tiles.count; i++) {
        (i ? kTiles : kFetchingTiles)[bytes][tiles.rows(i) - 1](x, tiles.begin(i), layer, column, sums);
        for (int64_t r = 0; r < tiles.rows(i); r++) callback(tiles.begin(i) + r, column, sums + r * kBlock);
      }
  });
}

}  // namespace conure::greedy
