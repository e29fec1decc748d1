// The Silero speech detector: the probability of speech in each 512 samples of a stream.
//
//     samples -> 4 frames -> magnitudes [4, 129] -> 4 convolutions over the frames -> [128] -> LSTM -> probability
//
// A convolution over a step's frames is one matrix product per output frame, with the taps that overlap the input, for
// up to 48 steps at a time so that the weights are read once for all of them. The first convolution is half of all
// operations: 4 outputs of 3 taps. Winograd's algorithm (Winograd, 1980; Lavin and Gray, 2015) needs 6 products of
// summed frames by summed taps instead of 10. The LSTM's input projection is a product as well; only the recurrent part
// runs step by step, for all streams together.
//
// The FFT processes 16 frames at a time, one per vector lane: a stream's result does not depend on the other streams.
#pragma once

#include <cstring>
#include <vector>

#include "float_matmul.hpp"
#include "mel.hpp"

namespace conure {

struct Silero {
  const float* window;          // [256]
  FloatMatrix first;                  // [6 * 129, 128]: sums of taps; the bias is zeros
  const float* first_bias;      // [128]
  FloatMatrix convolutions[3];        // [3 * in, out], tap by tap
  FloatMatrix input;                  // [128, 512]: gates in, forget, cell, out of 16 units, then of the next 16
  FloatMatrix output;                 // the recurrent weights in the same order; the bias is not used
  const float* head;            // [128]
  float head_bias;
};

namespace silero {

constexpr int64_t kStep = 512, kContext = 64, kFrame = 256, kHop = 128, kFrames = 4, kWidth = 128;
constexpr int64_t kPoints = kFrame / 2, kBins = kPoints + 1, kSums = 6;
constexpr int64_t kState = kContext + 2 * kWidth, kGates = 4 * kWidth;
constexpr int64_t kMaxRows = 48;                     // rows of one batch
constexpr int64_t kStepsPerFft = kLanes / kFrames;  // steps of one FFT

// Transposes a 16 x 16 matrix.
inline void transpose(Floats* rows) {
  Floats pairs[kLanes], quads[kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < kLanes; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kLanes; i += 4) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      const __m512d low = _mm512_castps_pd(pairs[i + half]), high = _mm512_castps_pd(pairs[i + 2 + half]);
      quads[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      quads[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const Floats a = _mm512_shuffle_f32x4(quads[i], quads[4 + i], 0x88);
    const Floats b = _mm512_shuffle_f32x4(quads[i], quads[4 + i], 0xdd);
    const Floats c = _mm512_shuffle_f32x4(quads[8 + i], quads[12 + i], 0x88);
    const Floats d = _mm512_shuffle_f32x4(quads[8 + i], quads[12 + i], 0xdd);
    rows[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    rows[8 + i] = _mm512_shuffle_f32x4(a, c, 0xdd);
    rows[4 + i] = _mm512_shuffle_f32x4(b, d, 0x88);
    rows[12 + i] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}

inline Floats root(Floats x) {
  // A 14-bit estimate and one Newton step; the maximum avoids the infinite inverse root of 0.
  const Floats estimate = _mm512_rsqrt14_ps(_mm512_max_ps(x, _mm512_set1_ps(1e-36f))), y = _mm512_mul_ps(x, estimate);
  const Floats correction = _mm512_fnmadd_ps(y, _mm512_mul_ps(estimate, _mm512_set1_ps(0.5f)), _mm512_set1_ps(1.5f));
  return _mm512_mul_ps(y, correction);
}

inline Floats tanh(Floats x) {
  const Floats two = _mm512_set1_ps(2.0f);
  return _mm512_fmsub_ps(two, sigmoid(_mm512_mul_ps(two, x)), _mm512_set1_ps(1.0f));
}

// Steps of some streams that are computed together: step t of stream b is row t * streams + b.
struct Block {
  const float* samples;  // first step of the first stream
  int64_t stride;        // of `samples`, from stream to stream
  int64_t streams, steps;
  float* state;         // [streams, kMemory]: last samples, LSTM output and LSTM cell
  float* probabilities;
  int64_t probability_stride;  // of `probabilities`, from stream to stream
  int64_t rows() const { return streams * steps; }
};

// Intermediate results by row. Later layers reuse the buffers of earlier ones, so that all of them stay in the cache.
struct Workspace {
  Buffer sums, products, second, third, fourth, hidden;
  float *first = sums.data(), *gates = products.data();
  Workspace()
      : sums(kMaxRows * kSums * kBins),
        products(kMaxRows * kSums * kWidth),
        second(kMaxRows * 2 * kWidth / 2),
        third(kMaxRows * kWidth / 2),
        fourth(kMaxRows * kWidth),
        hidden(kMaxRows * kWidth) {}
};

// Writes the context, the step, and the step's end mirrored.
inline void pad(const Block& block, int64_t row, float* out) {
  const int64_t step = row / block.streams, stream = row % block.streams;
  const float* samples = block.samples + stream * block.stride + step * kStep;
  std::memcpy(out, step ? samples - kContext : block.state + stream * kState, kContext * sizeof(float));
  std::memcpy(out + kContext, samples, kStep * sizeof(float));
  for (int64_t i = 0; i < kContext; i++) out[kContext + kStep + i] = samples[kStep - 2 - i];
}

// Winograd input transform: four frames, with a frame of zeros on either side, to six sums (interpolation points 0, 1,
// -1, 2, -2 and infinity).
inline void sum_frames(const Floats* frames, Floats* out) {
  const Floats two = _mm512_set1_ps(2.0f), four = _mm512_set1_ps(4.0f), five = _mm512_set1_ps(5.0f);
  const Floats a = frames[0], b = frames[1], c = frames[2], d = frames[3];
  const Floats even = _mm512_fnmadd_ps(four, b, d), odd = _mm512_fnmadd_ps(four, a, c);
  const Floats other = _mm512_sub_ps(d, b), twice = _mm512_mul_ps(two, _mm512_sub_ps(c, a));
  out[0] = _mm512_fnmadd_ps(five, b, d);
  out[1] = _mm512_add_ps(even, odd);
  out[2] = _mm512_sub_ps(even, odd);
  out[3] = _mm512_add_ps(other, twice);
  out[4] = _mm512_sub_ps(other, twice);
  out[5] = _mm512_fmsub_ps(four, a, _mm512_mul_ps(five, c));
}

// padded [kTransformed, 640] -> Winograd sums [kTransformed, 6, 129] of the magnitudes, for the first `count` steps.
inline void transform_steps(const Silero& net, const float* padded, int64_t count, float* sums) {
  alignas(64) static thread_local std::array<Complex, kPoints> z;
  alignas(64) static thread_local Floats bins[kPoints + kLanes];
  Floats* samples = bins;
  for (int64_t sample = 0; sample < kFrame; sample += kLanes) {
    for (int64_t lane = 0; lane < kLanes; lane++)
      samples[lane] = load(padded + lane / kFrames * (kFrames + 1) * kHop + lane % kFrames * kHop + sample);
    transpose(samples);
    for (int64_t i = 0; i < kLanes; i += 2) {
      const Floats even = _mm512_mul_ps(samples[i], _mm512_set1_ps(net.window[sample + i]));
      const Floats odd = _mm512_mul_ps(samples[i + 1], _mm512_set1_ps(net.window[sample + i + 1]));
      z[kDigitReversed<kPoints>[(sample + i) / 2]] = {even, odd};
    }
  }
  transform<kPoints>(z.data());
  power_spectrum<kPoints>(z.data(), bins);
  for (int64_t bin = 0; bin < kBins; bin += kLanes) {
    Floats* magnitudes = bins + bin;
    for (int64_t i = 0; i < kLanes; i++) magnitudes[i] = root(magnitudes[i]);
    transpose(magnitudes);
    const __mmask16 mask = conure::first_lanes(kBins - bin);
    for (int64_t step = 0; step < count; step++) {
      Floats six[kSums];
      sum_frames(magnitudes + step * kFrames, six);
      for (int64_t i = 0; i < kSums; i++) _mm512_mask_storeu_ps(sums + (step * kSums + i) * kBins + bin, mask, six[i]);
    }
  }
}

inline void spectra(const Silero& net, const Block& block, float* sums) {
  alignas(64) float padded[kStepsPerFft * (kFrames + 1) * kHop] = {};
  for (int64_t begin = 0; begin < block.rows(); begin += kStepsPerFft) {
    const int64_t count = std::min(kStepsPerFft, block.rows() - begin);
    for (int64_t i = 0; i < count; i++) pad(block, begin + i, padded + i * (kFrames + 1) * kHop);
    transform_steps(net, padded, count, sums + begin * kSums * kBins);
  }
}

// sums [rows, 6, 129] -> y [rows, 4, 128]
inline void convolve_first(const Silero& net, int64_t rows, Workspace& workspace) {
  for (int64_t i = 0; i < kSums; i++)
    multiply<false>({workspace.sums.data() + i * kBins, kSums * kBins}, rows, net.first, {i * kBins, kBins},
                    {workspace.products.data() + i * kWidth, kSums * kWidth});
  const Floats two = _mm512_set1_ps(2.0f), four = _mm512_set1_ps(4.0f), eight = _mm512_set1_ps(8.0f);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t at = 0; at < kWidth; at += kLanes) {
      Floats p[kSums];
      for (int64_t i = 0; i < kSums; i++) p[i] = load(workspace.products.data() + (row * kSums + i) * kWidth + at);
      const Floats bias = load(net.first_bias + at);
      const Floats near = _mm512_add_ps(p[1], p[2]), turned = _mm512_sub_ps(p[1], p[2]);
      const Floats far = _mm512_add_ps(p[3], p[4]), far_turned = _mm512_sub_ps(p[3], p[4]);
      const Floats y[kFrames] = {_mm512_add_ps(p[0], _mm512_add_ps(near, far)),
                                 _mm512_fmadd_ps(two, far_turned, turned), _mm512_fmadd_ps(four, far, near),
                                 _mm512_add_ps(p[5], _mm512_fmadd_ps(eight, far_turned, turned))};
      for (int64_t i = 0; i < kFrames; i++)
        _mm512_storeu_ps(workspace.first + (row * kFrames + i) * kWidth + at,
                         _mm512_max_ps(_mm512_add_ps(y[i], bias), _mm512_setzero_ps()));
    }
}

// x [rows, frames, in] -> y [rows, after, out] with a ReLU; frames beyond the edges are zeros.
inline void convolve(const FloatMatrix& weight, const float* x, int64_t rows, int64_t frames, int64_t stride,
                     float* y) {
  const int64_t width = weight.depth / 3, after = (frames + stride - 1) / stride;
  for (int64_t frame = 0; frame < after; frame++) {
    const int64_t left = frame * stride - 1, first = std::max(left, int64_t(0)), end = std::min(left + 3, frames);
    multiply<true>({x + first * width, frames * width}, rows, weight, {(first - left) * width, (end - first) * width},
                   {y + frame * weight.columns, after * weight.columns});
  }
}

// The recurrent part of an LSTM step: kRows streams, kBlocks * 16 units from unit 16 * `block` on.
template <int kRows, int kBlocks>
void advance(const FloatMatrix& weight, const float* hidden, const float* gates, int64_t block, float* state,
             float* outputs) {
  Floats sums[kRows][kBlocks][4];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 6
    for (int b = 0; b < kBlocks; b++)
#pragma GCC unroll 4
      for (int g = 0; g < 4; g++) sums[r][b][g] = load(gates + r * kGates + ((block + b) * 4 + g) * kLanes);
  const float* values = weight.values + block * 4 * kLanes * kWidth;
  for (int64_t k = 0; k < kWidth; k++, values += kFloatBlock)
#pragma GCC unroll 6
    for (int b = 0; b < kBlocks; b++)
#pragma GCC unroll 4
      for (int g = 0; g < 4; g++) {
        const Floats column = load(values + (2 * b + g / 2) * kFloatBlock * kWidth + g % 2 * kLanes);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; r++)
          sums[r][b][g] = _mm512_fmadd_ps(column, _mm512_set1_ps(hidden[r * kWidth + k]), sums[r][b][g]);
      }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 6
    for (int b = 0; b < kBlocks; b++) {
      const int64_t unit = (block + b) * kLanes;
      float* cells = state + r * kState + kContext + kWidth + unit;
      const Floats into = _mm512_mul_ps(sigmoid(sums[r][b][0]), tanh(sums[r][b][2]));
      const Floats cell = _mm512_fmadd_ps(sigmoid(sums[r][b][1]), load(cells), into);
      _mm512_storeu_ps(cells, cell);
      _mm512_storeu_ps(outputs + r * kWidth + unit, _mm512_mul_ps(sigmoid(sums[r][b][3]), tanh(cell)));
    }
}

template <int kRows, int kBlocks>
void advance_all(const FloatMatrix& weight, const float* hidden, const float* gates, float* state, float* outputs) {
  for (int64_t block = 0; block < kWidth / kLanes; block += kBlocks)
    advance<kRows, kBlocks>(weight, hidden, gates, block, state, outputs);
}

// One LSTM step of all streams: hidden and spoken [streams, kWidth].
inline void advance_lstm(const FloatMatrix& weight, int64_t streams, const float* hidden, const float* gates,
                         float* state, float* outputs) {
  using Advance = void (*)(const FloatMatrix&, const float*, const float*, float*, float*);
  static constexpr Advance kAdvance[] = {advance_all<1, 2>, advance_all<2, 2>, advance_all<3, 2>,
                                         advance_all<4, 1>, advance_all<5, 1>, advance_all<6, 1>};
  constexpr int64_t kMaxStreams = 6;
  const int64_t tiles = (streams + kMaxStreams - 1) / kMaxStreams;
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t begin = streams * i / tiles, count = streams * (i + 1) / tiles - begin;
    kAdvance[count - 1](weight, hidden + begin * kWidth, gates + begin * kGates, state + begin * kState,
                        outputs + begin * kWidth);
  }
}

inline float probability(const Silero& net, const float* outputs) {
  Floats sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < kWidth; i += kLanes)
    sum = _mm512_fmadd_ps(_mm512_max_ps(load(outputs + i), _mm512_setzero_ps()), load(net.head + i), sum);
  return _mm512_cvtss_f32(sigmoid(_mm512_set1_ps(_mm512_reduce_add_ps(sum) + net.head_bias)));
}

inline void detect_batch(const Silero& net, const Block& block, Workspace& workspace) {
  const int64_t rows = block.rows();
  spectra(net, block, workspace.sums.data());
  convolve_first(net, rows, workspace);
  convolve(net.convolutions[0], workspace.first, rows, kFrames, 2, workspace.second.data());
  convolve(net.convolutions[1], workspace.second.data(), rows, 2, 2, workspace.third.data());
  convolve(net.convolutions[2], workspace.third.data(), rows, 1, 1, workspace.fourth.data());
  multiply<false>({workspace.fourth.data(), kWidth}, rows, net.input, {0, kWidth}, {workspace.gates, kGates});
  float *hidden = workspace.hidden.data(), *outputs = workspace.fourth.data();  // free by now
  for (int64_t stream = 0; stream < block.streams; stream++)
    std::memcpy(hidden + stream * kWidth, block.state + stream * kState + kContext, kWidth * sizeof(float));
  for (int64_t step = 0; step < block.steps; step++) {
    const float* gates = workspace.gates + step * block.streams * kGates;
    advance_lstm(net.output, block.streams, hidden, gates, block.state, outputs);
    for (int64_t stream = 0; stream < block.streams; stream++)
      block.probabilities[stream * block.probability_stride + step] = probability(net, outputs + stream * kWidth);
    hidden = outputs;
    outputs += block.streams * kWidth;
  }
  for (int64_t stream = 0; stream < block.streams; stream++) {
    float* state = block.state + stream * kState;
    const float* end = block.samples + stream * block.stride + block.steps * kStep;
    std::memcpy(state, end - kContext, kContext * sizeof(float));
    std::memcpy(state + kContext, hidden + stream * kWidth, kWidth * sizeof(float));
  }
}

}  // namespace silero

// samples [streams, steps * 512] -> probabilities [streams, steps]; memory [streams, 64 + 2 * 128] is updated.
inline void detect_speech(const Silero& net, const float* samples, int64_t streams, int64_t steps, float* state,
                   float* probabilities) {
  using namespace silero;
  static thread_local Workspace workspace;
  for (int64_t begin = 0; begin < streams; begin += kMaxRows) {
    const int64_t count = std::min(kMaxRows, streams - begin), max_steps = kMaxRows / count;
    for (int64_t step = 0; step < steps; step += max_steps) {
      const Block block{samples + begin * steps * kStep + step * kStep, steps * kStep, count,
                        std::min(max_steps, steps - step), state + begin * kState,
                        probabilities + begin * steps + step, steps};
      detect_batch(net, block, workspace);
    }
  }
}

}  // namespace conure
