// Layers of small networks for a few rows: what costs is to read their weights from memory or a far cache.
//
// A weight is kept as blocks of 64 columns: bytes as in product.hpp, floats as [columns / 64, depth, 64]. A block is
// read once for all rows, by tiles of up to 6 of them; while the first tile is at work, what it needs some kB later
// is fetched. What becomes of a block's sums is the caller's, so that no second loop reads what this one has written.
#pragma once

#include <array>
#include <utility>

#include "product.hpp"
#include "kept.hpp"

namespace conure::greedy {

struct Layer {
  const void* values;   // bytes where there are scales, else floats
  const float* scales;  // [columns], or none
  const float* bias;    // [columns]
  int64_t depth, columns;
};

// Rows that layers read: floats [count, depth], and bytes with a scale for each row where the layer is of bytes.
struct Inputs {
  const float* floats;
  const int8_t* bytes;
  const float* scales;
  const int32_t* sums;
  int64_t count;
};

class Left {
 public:
  // fill(row, to) writes a row of the layer's depth.
  template <typename Fill>
  Inputs take(Pool& pool, int64_t count, const Layer& layer, const Fill& fill) {
    constexpr int64_t kTogether = 8;
    const int64_t depth = layer.depth;
    float *floats = floats_.of(count * depth), *scales = scales_.of(count);
    int8_t* bytes = bytes_.of(count * depth);
    int32_t* sums = sums_.of(count);
    pool.each(count, kTogether, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        fill(row, floats + row * depth);
        if (layer.scales) quantise(floats + row * depth, depth, bytes + row * depth, kQuad, scales[row], sums[row]);
      }
    });
    return {floats, bytes, scales, sums, count};
  }

 private:
  Kept<float> floats_, scales_;
  Kept<int8_t> bytes_;
  Kept<int32_t> sums_;
};

constexpr int64_t kFetchedAhead = 4096, kTaskBytes = 1 << 16;

// Sums of kRows rows for a block of columns -> [kRows, 64].
template <int kRows, bool kFetches>
void tile_of_bytes(const Inputs& x, int64_t row, const Layer& layer, int64_t column, float* to) {
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
      if (kFetches) _mm_prefetch((const char*)(block + kFetchedAhead + v * kLine), _MM_HINT_T1);
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
      _mm512_store_ps(to + r * kBlock + v * kLanes, _mm512_add_ps(y, load(layer.bias + at)));
    }
  }
}

template <int kRows, bool kFetches>
void tile_of_floats(const Inputs& x, int64_t row, const Layer& layer, int64_t column, float* to) {
  Floats sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) sums[r][v] = load(layer.bias + column + v * kLanes);
  const int64_t depth = layer.depth;
  const float* left = x.floats + row * depth;
  const float* block = static_cast<const float*>(layer.values) + column * depth;
  for (int64_t k = 0; k < depth; k++, block += kBlock) {
    Floats columns[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) {
      if (kFetches) _mm_prefetch((const char*)(block + v * kLanes) + kFetchedAhead, _MM_HINT_T1);
      columns[v] = load(block + v * kLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      const Floats one = _mm512_set1_ps(left[r * depth + k]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) sums[r][v] = _mm512_fmadd_ps(columns[v], one, sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) _mm512_store_ps(to + r * kBlock + v * kLanes, sums[r][v]);
}

using Tile = void (*)(const Inputs&, int64_t, const Layer&, int64_t, float*);
using TilesByRows = std::array<Tile, kTileRows>;

template <bool kFetches, std::size_t... kCounts>
constexpr std::array<TilesByRows, 2> tiles(std::index_sequence<kCounts...>) {
  return {TilesByRows{tile_of_floats<int(kCounts) + 1, kFetches>...},
          TilesByRows{tile_of_bytes<int(kCounts) + 1, kFetches>...}};
}

inline constexpr auto kTiles = tiles<false>(std::make_index_sequence<kTileRows>());
inline constexpr auto kFetchingTiles = tiles<true>(std::make_index_sequence<kTileRows>());

// Calls then(row, column, sums) for each row and block of 64 columns, in any order.
template <typename Then>
void multiply(Pool& pool, const Inputs& x, const Layer& layer, const Then& then) {
  const Tiles tiles(x.count);
  const bool bytes = layer.scales;
  const int64_t size = kBlock * layer.depth * (bytes ? 1 : sizeof(float));
  pool.each(layer.columns / kBlock, std::max<int64_t>(kTaskBytes / size, 1), [&](int64_t first, int64_t end) {
    alignas(kLine) float sums[kTileRows * kBlock];
    for (int64_t column = first * kBlock; column < end * kBlock; column += kBlock)
      for (int64_t i = 0; i < tiles.count; i++) {
        (i ? kTiles : kFetchingTiles)[bytes][tiles.rows(i) - 1](x, tiles.begin(i), layer, column, sums);
        for (int64_t r = 0; r < tiles.rows(i); r++) then(tiles.begin(i) + r, column, sums + r * kBlock);
      }
  });
}

}  // namespace conure::greedy
