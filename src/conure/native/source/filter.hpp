// The depthwise filter over time, with a ring of what came before the chunk.
#pragma once

#include "attention.hpp"

namespace conure {

struct Filter {
  const float* weight;  // [size, width]
  const float* bias;    // [width]
  int64_t size, width;
};

// Sums of steps [f.size] times weights, for kVectors vectors of columns; steps that are not there are null.
template <int kVectors>
void weigh(const Filter& f, const float* const* steps, int64_t at, float* to) {
  Floats sums[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; v++) sums[v] = load(f.bias + at + v * kLanes);
  for (int64_t k = 0; k < f.size; k++) {
    if (!steps[k]) continue;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) {
      const int64_t column = at + v * kLanes;
      sums[v] = _mm512_fmadd_ps(load(f.weight + k * f.width + column), load(steps[k] + column), sums[v]);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; v++) _mm512_storeu_ps(to + at + v * kLanes, sums[v]);
}

// x [rows * chunk, width] -> y; memory [slots, ring, width] holds the last steps of each row.
inline void filter(Pool& pool, const Filter& f, float* memory, int64_t ring, const Turn& turn, const float* x, float* y) {
  constexpr int kPart = 8;
  pool.each(turn.rows, 1, [&](int64_t from, int64_t end) {
    std::vector<const float*> steps(f.size);
    for (int64_t row = from; row < end; row++) {
      const int64_t age = turn.ages[row], begin = row * turn.chunk;
      float* kept = memory + turn.slots[row] * ring * f.width;
      for (int64_t i = 0; i < turn.counts[row]; i++)
        std::memcpy(kept + (age + i) % ring * f.width, x + (begin + i) * f.width, f.width * sizeof(float));
      for (int64_t i = 0; i < turn.chunk; i++) {
        for (int64_t k = 0; k < f.size; k++) {
          const int64_t step = age + i - f.size + 1 + k;  // before a row's start there is silence
          steps[k] = step < 0 ? nullptr : kept + step % ring * f.width;
        }
        float* to = y + (begin + i) * f.width;
        int64_t at = 0;
        for (; at + kPart * kLanes <= f.width; at += kPart * kLanes) weigh<kPart>(f, steps.data(), at, to);
        for (; at < f.width; at += kLanes) weigh<1>(f, steps.data(), at, to);
      }
    }
  });
}

}  // namespace conure
