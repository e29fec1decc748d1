// Depthwise convolution over time for chunks of streams; each slot keeps the last steps in a ring buffer.
#pragma once

#include "attention.hpp"

namespace conure {

struct Filter {
  const float* weight;  // [size, width]
  const float* bias;    // [width]
  int64_t size, width;
};

// Sum of steps [f.size] times weights, for kVectors vectors of columns. Null steps are zeros.
template <int kVectors>
void filter_columns(const Filter& f, const float* const* steps, int64_t column_begin, float* out) {
  Floats sums[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; v++) sums[v] = load(f.bias + column_begin + v * kLanes);
  for (int64_t k = 0; k < f.size; k++) {
    if (!steps[k]) continue;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) {
      const int64_t column = column_begin + v * kLanes;
      sums[v] = _mm512_fmadd_ps(load(f.weight + k * f.width + column), load(steps[k] + column), sums[v]);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; v++) _mm512_storeu_ps(out + column_begin + v * kLanes, sums[v]);
}

// x [rows * chunk, width] -> y; memory [slots, ring, width] holds the last steps of each slot.
inline void filter(ThreadPool& pool, const Filter& f, float* memory, int64_t ring, const StreamStep& stream_step,
                   const float* x, float* y) {
  constexpr int kGroup = 8;
  pool.parallel_for(stream_step.rows, 1, [&](int64_t from, int64_t end) {
    std::vector<const float*> steps(f.size);
    for (int64_t row = from; row < end; row++) {
      const int64_t age = stream_step.ages[row], begin = row * stream_step.chunk;
      float* slot_ring = memory + stream_step.slots[row] * ring * f.width;
      for (int64_t i = 0; i < stream_step.counts[row]; i++)
        std::memcpy(slot_ring + (age + i) % ring * f.width, x + (begin + i) * f.width, f.width * sizeof(float));
      for (int64_t i = 0; i < stream_step.chunk; i++) {
        for (int64_t k = 0; k < f.size; k++) {
          const int64_t step = age + i - f.size + 1 + k;  // zeros before the start of the stream
          steps[k] = step < 0 ? nullptr : slot_ring + step % ring * f.width;
        }
        float* out = y + (begin + i) * f.width;
        int64_t column_begin = 0;
        for (; column_begin + kGroup * kLanes <= f.width; column_begin += kGroup * kLanes)
          filter_columns<kGroup>(f, steps.data(), column_begin, out);
        for (; column_begin < f.width; column_begin += kLanes) filter_columns<1>(f, steps.data(), column_begin, out);
      }
    }
  });
}

}  // namespace conure
