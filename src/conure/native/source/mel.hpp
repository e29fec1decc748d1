// Log-mel spectra of sixteen frames at a time: each lane of a vector is a frame.
//
// A frame of 512 real samples is transformed as 256 complex ones, by passes of radix 4 (Cooley and Tukey, 1965).
#pragma once

#include <array>

#include "attention.hpp"

namespace conure {

constexpr int64_t kFft = 512, kHalf = kFft / 2, kBins = kHalf + 1;

struct Mel {
  const float* window;    // [kFft]
  const float* filters;   // [features, kBins]
  const int64_t* ranges;  // [features, 2], where a filter is not zero
  int64_t hop, features;
  float guard;            // what is added before the logarithm
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

// e^(-2 pi i k / kFft) for all k.
struct Turns {
  float re[kFft], im[kFft];
  Turns() {
    for (int64_t k = 0; k < kFft; k++) {
      re[k] = float(std::cos(2 * M_PI * k / kFft));
      im[k] = float(-std::sin(2 * M_PI * k / kFft));
    }
  }
  Complex by(int64_t k, Complex a) const {
    const Floats c = _mm512_set1_ps(re[k]), s = _mm512_set1_ps(im[k]);
    return {_mm512_fmsub_ps(a.re, c, _mm512_mul_ps(a.im, s)), _mm512_fmadd_ps(a.re, s, _mm512_mul_ps(a.im, c))};
  }
};

// Made at the first use and not when the library is opened, which processors without these instructions do, too.
inline const Turns& turns() {
  static const Turns all;
  return all;
}

// Where each of kPoints samples is before the first pass: by its last digit, by the one before that, and so on. Digits
// are of 4; where kPoints is no power of 4 the first one is of 2, for a pass of radix 2.
template <int64_t kPoints>
constexpr std::array<int64_t, kPoints> places() {
  std::array<int64_t, kPoints> all{};
  for (int64_t k = 0; k < kPoints; k++) {
    int64_t rest = k, size = kPoints;
    for (; size >= 4; rest /= 4, size /= 4) all[k] += rest % 4 * (size / 4);
    all[k] += rest;
  }
  return all;
}

template <int64_t kPoints>
inline constexpr auto kPlaces = places<kPoints>();

// z [kPoints] in those places -> its transform.
template <int64_t kPoints>
void transform(Complex* z) {
  const Turns& turn = turns();
  int64_t done = 1;
  if constexpr ((kPoints & 0x5555555555555555) == 0) {
    for (int64_t at = 0; at < kPoints; at += 2) {
      const Complex a = z[at], b = z[at + 1];
      z[at] = a + b;
      z[at + 1] = a - b;
    }
    done = 2;
  }
  for (int64_t size = 4 * done; size <= kPoints; size *= 4) {
    const int64_t quarter = size / 4, step = kFft / size;
    for (int64_t j = 0; j < quarter; j++)
      for (int64_t at = j; at < kPoints; at += size) {
        const Complex a = z[at], b = turn.by(j * step, z[at + quarter]);
        const Complex c = turn.by(2 * j * step, z[at + 2 * quarter]), d = turn.by(3 * j * step, z[at + 3 * quarter]);
        const Complex even = a + c, odd = b + d, other = a - c, turned = times_minus_i(b - d);
        z[at] = even + odd;
        z[at + quarter] = other + turned;
        z[at + 2 * quarter] = even - odd;
        z[at + 3 * quarter] = other - turned;
      }
  }
}

// Power of each of kPoints + 1 bins of the real signal whose even and odd samples are the parts of what was
// transformed.
template <int64_t kPoints>
void powers(const Complex* z, Floats* to) {
  const Turns& turn = turns();
  const Floats quarter = _mm512_set1_ps(0.25f);
  for (int64_t k = 0; k <= kPoints / 2; k++) {
    const Complex here = z[k], there = conjugate(z[(kPoints - k) % kPoints]);
    const Complex even = here + there, odd = turn.by(k * (kHalf / kPoints), times_minus_i(here - there));
    to[k] = _mm512_mul_ps(power(even + odd), quarter);
    to[kPoints - k] = _mm512_mul_ps(power(even - odd), quarter);
  }
}

// samples [rows, stride] -> log-mel [rows, frames, features]; frame t begins at sample t * hop.
inline void log_mel(Pool& pool, const Mel& mel, const float* samples, int64_t rows, int64_t stride, int64_t frames,
                    float* out) {
  pool.each(rows * frames, kLanes, [&](int64_t begin, int64_t end) {
    alignas(64) static thread_local std::array<Complex, kHalf> z;
    alignas(64) static thread_local std::array<Floats, kBins> bins;
    alignas(64) int32_t from[kLanes], into[kLanes];
    for (int64_t lane = 0; lane < kLanes; lane++) {
      const int64_t frame = std::min(begin + lane, end - 1);  // the last one fills what is left
      from[lane] = int32_t(frame / frames * stride + frame % frames * mel.hop);
      into[lane] = int32_t((frame - begin) * mel.features);
    }
    const __m512i places = _mm512_load_si512(from), targets = _mm512_load_si512(into);
    const auto sample = [&](int64_t n) {
      const float weight = mel.window[n];
      if (weight == 0) return _mm512_setzero_ps();
      return _mm512_mul_ps(_mm512_i32gather_ps(places, samples + n, 4), _mm512_set1_ps(weight));
    };
    for (int64_t k = 0; k < kHalf; k++) z[kPlaces<kHalf>[k]] = {sample(2 * k), sample(2 * k + 1)};
    transform<kHalf>(z.data());
    powers<kHalf>(z.data(), bins.data());
    for (int64_t f = 0; f < mel.features; f++) {
      Floats sum = _mm512_setzero_ps();
      for (int64_t k = mel.ranges[2 * f]; k < mel.ranges[2 * f + 1]; k++)
        sum = _mm512_fmadd_ps(_mm512_set1_ps(mel.filters[f * kBins + k]), bins[k], sum);
      const Floats y = log(_mm512_add_ps(sum, _mm512_set1_ps(mel.guard)));
      _mm512_mask_i32scatter_ps(out + begin * mel.features + f, first(end - begin), targets, y, 4);
    }
  });
}

}  // namespace conure
