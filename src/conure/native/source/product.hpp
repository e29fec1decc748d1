// Products of bytes: activations with a sign by weights without one, summed in 32 bits (VNNI).
//
// A weight [columns, depth] is kept as blocks of 64 columns: [columns / 64, depth / 4, 64, 4], each number with 128
// added to it. What that adds to a sum is 128 times the sum of a row's bytes, which is taken away at the end.
//
// A tile is up to 6 rows by 64 columns: its sums stay in registers for the whole depth, and ten reads serve 24
// instructions that multiply: tiles of 14 by 32 took 3 to 10 % longer, and reading rows within the multiplying
// instructions 20 to 40 %. A block of weights is read from memory once and by all tiles from the cache; while the first
// ones are at work, the next block is fetched.
#pragma once

#include <algorithm>
#include <utility>

#include "rows.hpp"

namespace conure {

constexpr int kVectors = 4, kBlock = kVectors * kLanes, kOffset = 128, kLine = 64;
constexpr int64_t kRun = 4, kTasks = 2, kLeastTiles = 8;

enum class After : int32_t { kNothing, kSilu, kRelu, kGate, kAdd };

struct Weight {
  const uint8_t* values;
  const float* scales;  // [columns]
  const float* bias;    // [columns], or none
  int64_t depth, columns;
};

// Results [rows, width]. With a gate, of 64 columns the first 32 are values and the others their gates, and the
// width is half of the columns. kAdd adds to what is there.
struct Result {
  float* values;
  int64_t stride;
  After after;
};

inline void finish(const int32_t* sums, float scale, int32_t sum, const Weight& weight, int64_t column,
                   const Result& to, int64_t row) {
  const __m512i offset = _mm512_set1_epi32(sum * kOffset);
  Floats y[kVectors];
  for (int v = 0; v < kVectors; v++) {
    const int64_t at = column + v * kLanes;
    const Floats scales = _mm512_mul_ps(_mm512_set1_ps(scale), load(weight.scales + at));
    const __m512i part = _mm512_load_si512(sums + v * kLanes);
    y[v] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(part, offset)), scales);
    if (weight.bias) y[v] = _mm512_add_ps(y[v], load(weight.bias + at));
  }
  float* out = to.values + row * to.stride;
  if (to.after == After::kGate) {
    constexpr int kHalf = kVectors / 2;
    for (int v = 0; v < kHalf; v++)
      _mm512_storeu_ps(out + column / 2 + v * kLanes, _mm512_mul_ps(y[v], sigmoid(y[kHalf + v])));
    return;
  }
  for (int v = 0; v < kVectors; v++) {
    float* at = out + column + v * kLanes;
    if (to.after == After::kSilu) y[v] = silu(y[v]);
    if (to.after == After::kRelu) y[v] = _mm512_max_ps(y[v], _mm512_setzero_ps());
    if (to.after == After::kAdd) y[v] = _mm512_add_ps(y[v], load(at));
    _mm512_storeu_ps(at, y[v]);
  }
}

// A line of `next` is fetched for each quad of the depth, if told.
template <int kRows, bool kFetches>
void tile(const Quantised& x, int64_t row, const Weight& weight, int64_t column, const uint8_t* next, const Result& to) {
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
  // Sums whose address is taken would be kept in memory all the time.
  alignas(64) int32_t done[kRows][kBlock];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) _mm512_store_si512(done[r] + v * kLanes, sums[r][v]);
  for (int r = 0; r < kRows; r++) finish(done[r], x.scales[row + r], x.sums[row + r], weight, column, to, row + r);
}

using Tile = void (*)(const Quantised&, int64_t, const Weight&, int64_t, const uint8_t*, const Result&);

template <bool kFetches, std::size_t... kCounts>
constexpr auto tiles(std::index_sequence<kCounts...>) {
  return std::array<Tile, sizeof...(kCounts)>{tile<int(kCounts) + 1, kFetches>...};
}

inline constexpr auto kTiles = tiles<false>(std::make_index_sequence<kTileRows>());
inline constexpr auto kFetchingTiles = tiles<true>(std::make_index_sequence<kTileRows>());

// How a product is cut into tasks: runs of blocks, whose weights a thread fetches one after the other, and where these
// are too few for all threads, parts of the rows, too.
struct Cut {
  int64_t run, runs, parts;

  Cut(int64_t threads, int64_t blocks, int64_t tiles) {
    const int64_t wanted = threads > 1 ? kTasks * threads : 1;
    run = std::clamp<int64_t>(blocks / wanted, 1, kRun);
    runs = (blocks + run - 1) / run;
    parts = std::clamp<int64_t>(wanted / runs, 1, std::max<int64_t>(tiles / kLeastTiles, 1));
  }
};

inline void multiply(Pool& pool, const Quantised& x, int64_t rows, const Weight& weight, const Result& to) {
  const Tiles tiles(rows);
  const int64_t bytes = kBlock * weight.depth, blocks = weight.columns / kBlock;
  const Cut cut(pool.threads(), blocks, tiles.count);
  pool.each(cut.runs * cut.parts, 1, [&](int64_t task, int64_t) {
    const int64_t part = task % cut.parts, begin = tiles.count * part / cut.parts;
    const int64_t end = tiles.count * (part + 1) / cut.parts, first = task / cut.parts * cut.run;
    const int64_t last = std::min(first + cut.run, blocks);
    for (int64_t block = first; block < last; block++) {
      const uint8_t* here = weight.values + block * bytes;
      for (int64_t i = begin; i < end; i++) {
        // The first four fetch a quarter of the next block each.
        const int64_t quarter = i - begin;
        const bool fetches = block + 1 < last && quarter < kVectors;
        const uint8_t* next = here + bytes + quarter * (bytes / kVectors);
        (fetches ? kFetchingTiles : kTiles)[tiles.rows(i) - 1](x, tiles.begin(i), weight, block * kBlock, next, to);
      }
    }
  });
}

}  // namespace conure
