// Rows of activations: normalised, and quantised for products.
#pragma once

#include <cmath>

#include "pool.hpp"
#include "vector.hpp"

namespace conure {

// Layer normalisation of a row; none without a weight.
struct Norm {
  const float* weight;  // [width]
  const float* bias;    // [width]
  float epsilon;
};

inline void normalise(const float* x, int64_t width, const Norm& norm, float* y) {
  Floats sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < width; i += kLanes) sum = _mm512_add_ps(sum, load(x + i));
  const Floats mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
  for (int64_t i = 0; i < width; i += kLanes) {
    const Floats d = _mm512_sub_ps(load(x + i), mean);
    squares = _mm512_fmadd_ps(d, d, squares);
  }
  const Floats scale = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / width + norm.epsilon));
  for (int64_t i = 0; i < width; i += kLanes) {
    const Floats d = _mm512_mul_ps(_mm512_sub_ps(load(x + i), mean), scale);
    _mm512_storeu_ps(y + i, _mm512_fmadd_ps(d, load(norm.weight + i), load(norm.bias + i)));
  }
}

// Rows of bytes: x ~ values * scale. Rows begin `stride` bytes apart; sums are those of a row's bytes.
struct Quantised {
  int8_t* values;
  int64_t stride;
  float* scales;
  int32_t* sums;
};

constexpr float kLevels = 127.0f, kSmallest = 1e-20f;

inline void quantise(const float* x, int64_t width, const Quantised& to, int64_t row) {
  Floats largest = _mm512_set1_ps(kSmallest);
  for (int64_t i = 0; i < width; i += kLanes) largest = _mm512_max_ps(largest, _mm512_abs_ps(load(x + i)));
  const float scale = _mm512_reduce_max_ps(largest) / kLevels;
  const Floats inverse = _mm512_set1_ps(1.0f / scale);
  __m512i sum = _mm512_setzero_si512();
  int8_t* values = to.values + row * to.stride;
  for (int64_t i = 0; i < width; i += kLanes) {
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(load(x + i), inverse));
    sum = _mm512_add_epi32(sum, rounded);
    _mm_storeu_si128((__m128i*)(values + i), _mm512_cvtsepi32_epi8(rounded));
  }
  to.scales[row] = scale;
  to.sums[row] = _mm512_reduce_add_epi32(sum);
}

// x [rows, width], normalised where there is a norm, through SiLU if told, quantised row by row.
inline void quantise(Pool& pool, const float* x, int64_t rows, int64_t width, const Norm& norm, bool gated,
                     const Quantised& to) {
  pool.each(rows, 4, [&](int64_t begin, int64_t end) {
    static thread_local std::vector<float> scratch;
    scratch.resize(width);
    for (int64_t row = begin; row < end; row++) {
      const float* from = x + row * width;
      if (norm.weight) {
        normalise(from, width, norm, scratch.data());
        from = scratch.data();
      }
      if (gated) {
        for (int64_t i = 0; i < width; i += kLanes) _mm512_storeu_ps(scratch.data() + i, silu(load(from + i)));
        from = scratch.data();
      }
      quantise(from, width, to, row);
    }
  });
}

}  // namespace conure
