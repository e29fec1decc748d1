// Log-mel spectra of 16 frames at a time, one frame per vector lane.
//
// The FFT of 512 real samples is computed as one of 256 complex samples, in passes of radix 4 (Cooley and Tukey, 1965).
#pragma once

#include <array>

#include "attention.hpp"

namespace conure {

constexpr int64_t kFft = 512, kHalf = kFft / 2, kBins = kHalf + 1;

struct Mel {
  const float* window;    // [kFft]
  const float* filters;   // [features, kBins]
  const int64_t* ranges;  // [features, 2], first and end bin of a filter's nonzero weights
  int64_t hop, features;
  float guard;            // added before the logarithm
};

// Natural logarithm of positive normal numbers, to 2 units in the last place (polynomial of Cephes).
inline Floats log(Floats x) {
  Floats e = _mm512_getexp_ps(x), m = _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
  const Floats one = _mm512_set1_ps(1.0f);
  const __mmask16 upper = _mm512_cmp_ps_mask(m, _mm512_set1_ps(1.41421356f), _CMP_GT_OQ);
  m = _mm512_mask_mul_ps(m, upper, m, _mm512_set1_ps(0.5f));
  e = _mm512_mask_add_ps(e, upper, e, one);
  const Floats r = _mm512_sub_ps(m, one), square = _mm512_mul_ps(r, r);
  Floats p = _mm512_set1_ps(7.0376836292e-2f);
  for (float c : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                  2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  p = _mm512_mul_ps(_mm512_mul_ps(p, r), square);
  p = _mm512_fmadd_ps(e, _mm512_set1_ps(-2.12194440e-4f), p);
  p = _mm512_fnmadd_ps(square, _mm512_set1_ps(0.5f), p);
  return _mm512_fmadd_ps(e, _mm512_set1_ps(0.693359375f), _mm512_add_ps(r, p));
}

struct Complex {
  Floats re, im;
};

inline Complex operator+(Complex a, Complex b) { return {_mm512_add_ps(a.re, b.re), _mm512_add_ps(a.im, b.im)}; }
inline Complex operator-(Complex a, Complex b) { return {_mm512_sub_ps(a.re, b.re), _mm512_sub_ps(a.im, b.im)}; }
inline Complex conjugate(Complex a) { return {a.re, _mm512_sub_ps(_mm512_setzero_ps(), a.im)}; }
inline Complex times_minus_i(Complex a) { return {a.im, _mm512_sub_ps(_mm512_setzero_ps(), a.re)}; }
inline Floats power(Complex a) { return _mm512_fmadd_ps(a.re, a.re, _mm512_mul_ps(a.im, a.im)); }

// Twiddle factors of the FFT: e^(-2 pi i k / kFft).
struct Twiddles {
  float re[kFft], im[kFft];
  Twiddles() {
    for (int64_t k = 0; k < kFft; k++) {
      re[k] = float(std::cos(2 * M_PI * k / kFft));
      im[k] = float(-std::sin(2 * M_PI * k / kFft));
    }
  }
  Complex rotate(int64_t k, Complex a) const {
    const Floats c = _mm512_set1_ps(re[k]), s = _mm512_set1_ps(im[k]);
    return {_mm512_fmsub_ps(a.re, c, _mm512_mul_ps(a.im, s)), _mm512_fmadd_ps(a.re, s, _mm512_mul_ps(a.im, c))};
  }
};

// Initialised at the first use: loading the library must not run AVX-512 code on processors without it.
inline const Twiddles& twiddles() {
  static const Twiddles factors;
  return factors;
}

// Digit-reversed index of each of kPoints samples before the first pass. Digits are base 4; if kPoints is not a power
// of 4, the first pass has radix 2.
template <int64_t kPoints>
constexpr std::array<int64_t, kPoints> digit_reversed() {
  std::array<int64_t, kPoints> index{};
  for (int64_t k = 0; k < kPoints; k++) {
    int64_t rest = k, size = kPoints;
    for (; size >= 4; rest /= 4, size /= 4) index[k] += rest % 4 * (size / 4);
    index[k] += rest;
  }
  return index;
}

template <int64_t kPoints>
inline constexpr auto kDigitReversed = digit_reversed<kPoints>();

// In-place FFT of z [kPoints], which is in digit-reversed order.
template <int64_t kPoints>
void transform(Complex* z) {
  const Twiddles& factors = twiddles();
  int64_t size_done = 1;
  if constexpr ((kPoints & 0x5555555555555555) == 0) {
    for (int64_t at = 0; at < kPoints; at += 2) {
      const Complex a = z[at], b = z[at + 1];
      z[at] = a + b;
      z[at + 1] = a - b;
    }
    size_done = 2;
  }
  for (int64_t size = 4 * size_done; size <= kPoints; size *= 4) {
    const int64_t quarter = size / 4, step = kFft / size;
    for (int64_t j = 0; j < quarter; j++)
      for (int64_t at = j; at < kPoints; at += size) {
        const Complex a = z[at], b = factors.rotate(j * step, z[at + quarter]);
        const Complex c = factors.rotate(2 * j * step, z[at + 2 * quarter]);
        const Complex d = factors.rotate(3 * j * step, z[at + 3 * quarter]);
        const Complex even = a + c, odd = b + d, difference = a - c, rotated = times_minus_i(b - d);
        z[at] = even + odd;
        z[at + quarter] = difference + rotated;
        z[at + 2 * quarter] = even - odd;
        z[at + 3 * quarter] = difference - rotated;
      }
  }
}

// Power spectrum, kPoints + 1 bins, of a real signal whose even and odd samples were the real and imaginary parts of
// the FFT's input.
template <int64_t kPoints>
void power_spectrum(const Complex* z, Floats* out) {
  const Twiddles& factors = twiddles();
  const Floats quarter = _mm512_set1_ps(0.25f);
  for (int64_t k = 0; k <= kPoints / 2; k++) {
    const Complex here = z[k], mirrored = conjugate(z[(kPoints - k) % kPoints]);
    const Complex even = here + mirrored, odd = factors.rotate(k * (kHalf / kPoints), times_minus_i(here - mirrored));
    out[k] = _mm512_mul_ps(power(even + odd), quarter);
    out[kPoints - k] = _mm512_mul_ps(power(even - odd), quarter);
  }
}

// samples [rows, stride] -> log-mel [rows, frames, features]; frame t begins at sample t * hop.
inline void log_mel(ThreadPool& pool, const Mel& mel, const float* samples, int64_t rows, int64_t stride,
                    int64_t frames, float* out) {
  pool.parallel_for(rows * frames, kLanes, [&](int64_t begin, int64_t end) {
    alignas(64) static thread_local std::array<Complex, kHalf> z;
    alignas(64) static thread_local std::array<Floats, kBins> bins;
    alignas(64) int32_t from[kLanes], into[kLanes];
    for (int64_t lane = 0; lane < kLanes; lane++) {
      const int64_t frame = std::min(begin + lane, end - 1);  // the last frame pads the vector
      from[lane] = int32_t(frame / frames * stride + frame % frames * mel.hop);
      into[lane] = int32_t((frame - begin) * mel.features);
    }
    const __m512i sources = _mm512_load_si512(from), targets = _mm512_load_si512(into);
    const auto sample = [&](int64_t n) {
      const float weight = mel.window[n];
      if (weight == 0) return _mm512_setzero_ps();
      return _mm512_mul_ps(_mm512_i32gather_ps(sources, samples + n, 4), _mm512_set1_ps(weight));
    };
    for (int64_t k = 0; k < kHalf; k++) z[kDigitReversed<kHalf>[k]] = {sample(2 * k), sample(2 * k + 1)};
    transform<kHalf>(z.data());
    power_spectrum<kHalf>(z.data(), bins.data());
    for (int64_t f = 0; f < mel.features; f++) {
      Floats sum = _mm512_setzero_ps();
      for (int64_t k = mel.ranges[2 * f]; k < mel.ranges[2 * f + 1]; k++)
        sum = _mm512_fmadd_ps(_mm512_set1_ps(mel.filters[f * kBins + k]), bins[k], sum);
      const Floats y = log(_mm512_add_ps(sum, _mm512_set1_ps(mel.guard)));
      _mm512_mask_i32scatter_ps(out + begin * mel.features + f, first_lanes(end - begin), targets, y, 4);
    }
  });
}

}  // namespace conure
