// int8 matrix products: signed activations by unsigned weights, accumulated in 32 bits (VNNI).
//
// A weight [columns, depth] is stored in blocks of 64 columns: [columns / 64, depth / 4, 64, 4], with 128 added to each
// number. That adds 128 times the sum of the activation row to each product, which is subtracted at the end.
//
// A tile is up to 6 rows by 64 columns: its sums stay in registers for the whole depth, and ten loads feed 24
// multiplications. Tiles of 14 by 32 were 3 to 10 % slower, and memory operands in the multiplications 20 to 40 %.
// A block of weights is read from memory once and then from the cache; the first tiles prefetch the next block.
#pragma once

#include <algorithm>
#include <utility>

#include "quantise.hpp"

namespace conure {

constexpr int kVectors = 4, kBlock = kVectors * kLanes, kOffset = 128, kLine = 64;
constexpr int64_t kMaxRun = 4, kTasksPerThread = 2, kMinTiles = 8;

enum class Epilogue : int32_t { kNothing, kSilu, kRelu, kGate, kAdd };

struct Weight {
  const uint8_t* values;
  const float* scales;  // [columns]
  const float* bias;    // [columns], or null
  int64_t depth, columns;
};

// Output [rows, width] and the epilogue of the product. kGate: of 64 columns the first 32 are values and the others
// their gates, so the width is half of the columns. kAdd accumulates into the output.
struct Result {
  float* values;
  int64_t stride;
  Epilogue epilogue;
};

inline void write_result(const int32_t* sums, float scale, int32_t sum, const Weight& weight, int64_t column,
                   const Result& result, int64_t row) {
  const __m512i offset = _mm512_set1_epi32(sum * kOffset);
  Floats y[kVectors];
  for (int v = 0; v < kVectors; v++) {
    const int64_t at = column + v * kLanes;
    const Floats scales = _mm512_mul_ps(_mm512_set1_ps(scale), load(weight.scales + at));
    const __m512i part = _mm512_load_si512(sums + v * kLanes);
    y[v] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(part, offset)), scales);
    if (weight.bias) y[v] = _mm512_add_ps(y[v], load(weight.bias + at));
  }
  float* out = result.values + row * result.stride;
  if (result.epilogue == Epilogue::kGate) {
    constexpr int kHalf = kVectors / 2;
    for (int v = 0; v < kHalf; v++)
      _mm512_storeu_ps(out + column / 2 + v * kLanes, _mm512_mul_ps(y[v], sigmoid(y[kHalf + v])));
    return;
  }
  for (int v = 0; v < kVectors; v++) {
    float* at = out + column + v * kLanes;
    if (result.epilogue == Epilogue::kSilu) y[v] = silu(y[v]);
    if (result.epilogue == Epilogue::kRelu) y[v] = _mm512_max_ps(y[v], _mm512_setzero_ps());
    if (result.epilogue == Epilogue::kAdd) y[v] = _mm512_add_ps(y[v], load(at));
    _mm512_storeu_ps(at, y[v]);
  }
}

// If kFetches, prefetches one cache line of `next` for each quad of the depth.
template <int kRows, bool kFetches>
void tile(const Quantised& x, int64_t row, const Weight& weight, int64_t column, const uint8_t* next,
          const Result& result) {
  __m512i sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) sums[r][v] = _mm512_setzero_si512();
  const int8_t* quad = x.values + row * weight.depth;
  const uint8_t* block = weight.values + column * weight.depth;
#pragma GCC unroll 2
  for (int64_t q = weight.depth / kQuad; q > 0; q--, quad += kRows * kQuad, block += kBlock * kQuad) {
    __m512i columns[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) columns[v] = _mm512_loadu_si512(block + v * kLine);
    if (kFetches) _mm_prefetch((const char*)next, _MM_HINT_T1), next += kLine;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      const __m512i four = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(quad + r * kQuad));
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], columns[v], four);
    }
  }
  // A copy: taking the address of `sums` would keep them in memory instead of registers.
  alignas(64) int32_t done[kRows][kBlock];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) _mm512_store_si512(done[r] + v * kLanes, sums[r][v]);
  for (int r = 0; r < kRows; r++)
    write_result(done[r], x.scales[row + r], x.sums[row + r], weight, column, result, row + r);
}

using Tile = void (*)(const Quantised&, int64_t, const Weight&, int64_t, const uint8_t*, const Result&);

template <bool kFetches, std::size_t... kCounts>
constexpr auto tiles(std::index_sequence<kCounts...>) {
  return std::array<Tile, sizeof...(kCounts)>{tile<int(kCounts) + 1, kFetches>...};
}

inline constexpr auto kTiles = tiles<false>(std::make_index_sequence<kTileRows>());
inline constexpr auto kFetchingTiles = tiles<true>(std::make_index_sequence<kTileRows>());

// How a product is split into tasks: runs of blocks, whose weights a thread reads in order, and ranges of rows if there
// are too few runs for all threads.
struct TaskSplit {
  int64_t run, runs, parts;

  TaskSplit(int64_t threads, int64_t blocks, int64_t tiles) {
    const int64_t target = threads > 1 ? kTasksPerThread * threads : 1;
    run = std::clamp<int64_t>(blocks / target, 1, kMaxRun);
    runs = (blocks + run - 1) / run;
    parts = std::clamp<int64_t>(target / runs, 1, std::max<int64_t>(tiles / kMinTiles, 1));
  }
};

inline void multiply(ThreadPool& pool, const Quantised& x, int64_t rows, const Weight& weight, const Result& result) {
  const Tiles tiles(rows);
  const int64_t bytes = kBlock * weight.depth, blocks = weight.columns / kBlock;
  const TaskSplit split(pool.threads(), blocks, tiles.count);
  pool.parallel_for(split.runs * split.parts, 1, [&](int64_t task, int64_t) {
    const int64_t part = task % split.parts, begin = tiles.count * part / split.parts;
    const int64_t end = tiles.count * (part + 1) / split.parts, first = task / split.parts * split.run;
    const int64_t last = std::min(first + split.run, blocks);
    for (int64_t block = first; block < last; block++) {
      const uint8_t* block_values = weight.values + block * bytes;
      for (int64_t i = begin; i < end; i++) {
        // Each of the first four tiles prefetches a quarter of the next block.
        const int64_t quarter = i - begin;
        const bool fetches = block + 1 < last && quarter < kVectors;
        const uint8_t* next = block_values + bytes + quarter * (bytes / kVectors);
        (fetches ? kFetchingTiles : kTiles)[tiles.rows(i) - 1](x, tiles.begin(i), weight, block * kBlock, next, result);
      }
    }
  });
}

}  // namespace conure
