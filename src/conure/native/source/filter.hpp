// The depthwise filter over time, with a ring of what came before the chunk.
#pragma once

#include "attention.hpp"

namespace conure {

struct Filter {
  const float* weight;  // [size, width]
  const float* bias;    // [width]
  int64_t size, width;
};

// x [rows * chunk, width] -> y; memory [slots, ring, width] holds the last steps of each row.
inline void filter(Pool& pool, const Filter& f, float* memory, int64_t ring, const Turn& turn, const float* x, float* y) {
  const int64_t parts = vectors(f.width);
  pool.each(turn.rows * parts, kLanes, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; part++) {
      const int64_t row = part / parts, at = part % parts * kLanes, age = turn.ages[row];
      float* kept = memory + turn.slots[row] * ring * f.width + at;
      for (int64_t i = 0; i < turn.counts[row]; i++)
        _mm512_storeu_ps(kept + (age + i) % ring * f.width, load(x + (row * turn.chunk + i) * f.width + at));
      for (int64_t i = 0; i < turn.chunk; i++) {
        Floats sum = load(f.bias + at);
        for (int64_t k = 0; k < f.size; k++) {
          const int64_t step = age + i - f.size + 1 + k;  // before a row's start there is silence
          if (step < 0) continue;
          sum = _mm512_fmadd_ps(load(f.weight + k * f.width + at), load(kept + step % ring * f.width), sum);
        }
        _mm512_storeu_ps(y + (row * turn.chunk + i) * f.width + at, sum);
      }
    }
  });
}

}  // namespace conure
