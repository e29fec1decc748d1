// Silero's speech detector: for each 512 samples of a stream how likely there is speech in them.
//
//     samples -> 4 frames -> magnitudes [4, 129] -> 4 convolutions over the frames -> [128] -> LSTM -> probability
//
// A convolution over a step's frames is a product for each of its results, with the taps that meet a frame: of some
// dozens of steps together, so that the weights are read for all of them. The LSTM's input is such a product as well;
// only what the LSTM makes of its own output has to go step by step, for all streams together.
//
// Two frames are the real and the imaginary part of one complex transform of 256, and 32 frames are taken at a time.
#pragma once

#include <cstring>
#include <vector>

#include "dense.hpp"
#include "mel.hpp"

namespace conure {

struct Silero {
  const float* window;          // [256], halved: the transform of two frames gives each twice
  Dense convolutions[4];        // [3 * in, out], tap by tap
  Dense input;                  // [128, 512]: of 16 units the gates in, forget, cell, out, then the next 16
  Dense output;                 // the same of the LSTM's own output; its bias is not used
  const float* head;            // [128]
  float head_bias;
};

namespace silero {

constexpr int64_t kStep = 512, kContext = 64, kFrame = 256, kHop = 128, kFrames = 4, kWidth = 128;
constexpr int64_t kMagnitudes = kFrame / 2 + 1, kMemory = kContext + 2 * kWidth, kGates = 4 * kWidth;
constexpr int64_t kSteps = 48;                        // together
constexpr int64_t kTransformed = 2 * kLanes / kFrames;  // steps whose frames are transformed together

// 16 rows of 16, turned.
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
  // An estimate of 14 bits and Newton's step; of nothing it would be infinite.
  const Floats near = _mm512_rsqrt14_ps(_mm512_max_ps(x, _mm512_set1_ps(1e-36f))), y = _mm512_mul_ps(x, near);
  const Floats left = _mm512_fnmadd_ps(y, _mm512_mul_ps(near, _mm512_set1_ps(0.5f)), _mm512_set1_ps(1.5f));
  return _mm512_mul_ps(y, left);
}

inline Floats tanh(Floats x) {
  const Floats two = _mm512_set1_ps(2.0f);
  return _mm512_fmsub_ps(two, sigmoid(_mm512_mul_ps(two, x)), _mm512_set1_ps(1.0f));
}

// Streams that are heard together, some of their steps: of step t of stream b the row is t * streams + b.
struct Block {
  const float* samples;  // of the first step of the first stream
  int64_t stride;        // from stream to stream
  int64_t streams, steps;
  float* memory;         // [streams, kMemory]: last samples, output and cell of the LSTM
  float* probabilities;
  int64_t apart;         // from stream to stream
  int64_t rows() const { return streams * steps; }
};

struct Room {
  std::vector<float> magnitudes, first, second, third, fourth, gates, hidden, padded;
  Room()
      : magnitudes(kSteps * kFrames * kMagnitudes),
        first(kSteps * kFrames * kWidth),
        second(kSteps * 2 * kWidth / 2),
        third(kSteps * kWidth / 2),
        fourth(kSteps * kWidth),
        gates(kSteps * kGates),
        hidden(kSteps * kWidth),
        padded(kTransformed * (kFrames + 1) * kHop) {}
};

// Context, step and its end mirrored.
inline void pad(const Block& block, int64_t row, float* to) {
  const int64_t step = row / block.streams, stream = row % block.streams;
  const float* samples = block.samples + stream * block.stride + step * kStep;
  std::memcpy(to, step ? samples - kContext : block.memory + stream * kMemory, kContext * sizeof(float));
  std::memcpy(to + kContext, samples, kStep * sizeof(float));
  for (int64_t i = 0; i < kContext; i++) to[kContext + kStep + i] = samples[kStep - 2 - i];
}

// Frames from `begin` on, of which there are `count` -> their samples under the window, lane by lane.
inline void spread(const Silero& net, const float* padded, int64_t first, int64_t sample, Floats* to) {
  for (int64_t lane = 0; lane < kLanes; lane++) {
    const int64_t frame = first + lane;
    to[lane] = load(padded + frame / kFrames * (kFrames + 1) * kHop + frame % kFrames * kHop + sample);
  }
  transpose(to);
  for (int64_t i = 0; i < kLanes; i++) to[i] = _mm512_mul_ps(to[i], _mm512_set1_ps(net.window[sample + i]));
}

// padded [kTransformed, 640] -> magnitudes [32, 129] of its frames, the first `count` of which are kept.
inline void transform_frames(const Silero& net, const float* padded, int64_t count, float* magnitudes) {
  alignas(64) static thread_local std::array<Complex, kFrame> z;
  for (int64_t sample = 0; sample < kFrame; sample += kLanes) {
    Floats re[kLanes], im[kLanes];
    spread(net, padded, 0, sample, re);
    spread(net, padded, kLanes, sample, im);
    for (int64_t i = 0; i < kLanes; i++) z[reversed(sample + i)] = {re[i], im[i]};
  }
  transform(z.data());
  const auto keep = [&](int64_t first, int64_t bin, Floats* values) {
    transpose(values);
    for (int64_t lane = 0; lane < std::min(kLanes + 0L, count - first); lane++)
      _mm512_storeu_ps(magnitudes + (first + lane) * kMagnitudes + bin, values[lane]);
  };
  for (int64_t bin = 0; bin < kFrame / 2; bin += kLanes) {
    Floats one[kLanes], other[kLanes];
    for (int64_t i = 0; i < kLanes; i++) {
      const Complex here = z[bin + i], there = conjugate(z[(kFrame - bin - i) % kFrame]);
      one[i] = root(power(here + there));
      other[i] = root(power(here - there));
    }
    keep(0, bin, one);
    keep(kLanes, bin, other);
  }
  const Complex last = z[kFrame / 2];
  alignas(64) float highest[2 * kLanes];
  _mm512_store_ps(highest, _mm512_abs_ps(_mm512_add_ps(last.re, last.re)));
  _mm512_store_ps(highest + kLanes, _mm512_abs_ps(_mm512_add_ps(last.im, last.im)));
  for (int64_t frame = 0; frame < count; frame++) magnitudes[frame * kMagnitudes + kFrame / 2] = highest[frame];
}

inline void spectra(const Silero& net, const Block& block, Room& room) {
  for (int64_t begin = 0; begin < block.rows(); begin += kTransformed) {
    const int64_t count = std::min(kTransformed, block.rows() - begin);
    for (int64_t i = 0; i < count; i++) pad(block, begin + i, room.padded.data() + i * (kFrames + 1) * kHop);
    transform_frames(net, room.padded.data(), count * kFrames, room.magnitudes.data() + begin * kFrames * kMagnitudes);
  }
}

// x [rows, frames, in] -> y [rows, after, out] with a ReLU. Frames that are not there are zeros.
inline void convolve(const Dense& weight, const float* x, int64_t rows, int64_t frames, int64_t stride, float* y) {
  const int64_t width = weight.depth / 3, after = (frames + stride - 1) / stride;
  for (int64_t to = 0; to < after; to++) {
    const int64_t left = to * stride - 1, first = std::max(left, int64_t(0)), end = std::min(left + 3, frames);
    multiply<true>({x + first * width, frames * width}, rows, weight, {(first - left) * width, (end - first) * width},
                   {y + to * weight.columns, after * weight.columns});
  }
}

// What the LSTM makes of kRows streams' output [., kWidth], for the units of kBlocks blocks of gates from `block` on.
template <int kRows, int kBlocks>
void advance(const Dense& weight, const float* hidden, const float* gates, int64_t block, float* memory, float* spoken) {
  Floats sums[kRows][kBlocks][4];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 6
    for (int b = 0; b < kBlocks; b++)
#pragma GCC unroll 4
      for (int g = 0; g < 4; g++) sums[r][b][g] = load(gates + r * kGates + (block + b) * kDenseBlock + g * kLanes);
  const float* values = weight.values + block * kDenseBlock * kWidth;
  for (int64_t k = 0; k < kWidth; k++, values += kDenseBlock)
#pragma GCC unroll 6
    for (int b = 0; b < kBlocks; b++)
#pragma GCC unroll 4
      for (int g = 0; g < 4; g++) {
        const Floats column = load(values + b * kDenseBlock * kWidth + g * kLanes);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; r++)
          sums[r][b][g] = _mm512_fmadd_ps(column, _mm512_set1_ps(hidden[r * kWidth + k]), sums[r][b][g]);
      }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 6
    for (int b = 0; b < kBlocks; b++) {
      const int64_t unit = (block + b) * kLanes;
      float* cells = memory + r * kMemory + kContext + kWidth + unit;
      const Floats into = _mm512_mul_ps(sigmoid(sums[r][b][0]), tanh(sums[r][b][2]));
      const Floats cell = _mm512_fmadd_ps(sigmoid(sums[r][b][1]), load(cells), into);
      _mm512_storeu_ps(cells, cell);
      _mm512_storeu_ps(spoken + r * kWidth + unit, _mm512_mul_ps(sigmoid(sums[r][b][3]), tanh(cell)));
    }
}

template <int kRows, int kBlocks>
void advance_all(const Dense& weight, const float* hidden, const float* gates, float* memory, float* spoken) {
  for (int64_t block = 0; block < kWidth / kLanes; block += kBlocks)
    advance<kRows, kBlocks>(weight, hidden, gates, block, memory, spoken);
}

// One step of all streams: hidden and spoken [streams, kWidth].
inline void recur(const Dense& weight, int64_t streams, const float* hidden, const float* gates, float* memory,
                  float* spoken) {
  using Advance = void (*)(const Dense&, const float*, const float*, float*, float*);
  static constexpr Advance kAdvance[] = {advance_all<1, 4>, advance_all<2, 2>, advance_all<3, 2>,
                                         advance_all<4, 1>, advance_all<5, 1>, advance_all<6, 1>};
  constexpr int64_t kMost = 6;
  const int64_t tiles = (streams + kMost - 1) / kMost;
  for (int64_t i = 0; i < tiles; i++) {
    const int64_t begin = streams * i / tiles, count = streams * (i + 1) / tiles - begin;
    kAdvance[count - 1](weight, hidden + begin * kWidth, gates + begin * kGates, memory + begin * kMemory,
                        spoken + begin * kWidth);
  }
}

inline float probability(const Silero& net, const float* spoken) {
  Floats sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < kWidth; i += kLanes)
    sum = _mm512_fmadd_ps(_mm512_max_ps(load(spoken + i), _mm512_setzero_ps()), load(net.head + i), sum);
  return _mm512_cvtss_f32(sigmoid(_mm512_set1_ps(_mm512_reduce_add_ps(sum) + net.head_bias)));
}

inline void listen(const Silero& net, const Block& block, Room& room) {
  const int64_t rows = block.rows();
  spectra(net, block, room);
  convolve(net.convolutions[0], room.magnitudes.data(), rows, kFrames, 1, room.first.data());
  convolve(net.convolutions[1], room.first.data(), rows, kFrames, 2, room.second.data());
  convolve(net.convolutions[2], room.second.data(), rows, 2, 2, room.third.data());
  convolve(net.convolutions[3], room.third.data(), rows, 1, 1, room.fourth.data());
  multiply<false>({room.fourth.data(), kWidth}, rows, net.input, {0, kWidth}, {room.gates.data(), kGates});
  float *hidden = room.hidden.data(), *spoken = room.fourth.data();  // whose rows are used up by now
  for (int64_t stream = 0; stream < block.streams; stream++)
    std::memcpy(hidden + stream * kWidth, block.memory + stream * kMemory + kContext, kWidth * sizeof(float));
  for (int64_t step = 0; step < block.steps; step++) {
    recur(net.output, block.streams, hidden, room.gates.data() + step * block.streams * kGates, block.memory, spoken);
    for (int64_t stream = 0; stream < block.streams; stream++)
      block.probabilities[stream * block.apart + step] = probability(net, spoken + stream * kWidth);
    hidden = spoken;
    spoken += block.streams * kWidth;
  }
  for (int64_t stream = 0; stream < block.streams; stream++) {
    float* memory = block.memory + stream * kMemory;
    const float* end = block.samples + stream * block.stride + block.steps * kStep;
    std::memcpy(memory, end - kContext, kContext * sizeof(float));
    std::memcpy(memory + kContext, hidden + stream * kWidth, kWidth * sizeof(float));
  }
}

}  // namespace silero

// samples [streams, steps * 512] -> probabilities [streams, steps]; memory [streams, 64 + 2 * 128] moves on.
inline void listen(const Silero& net, const float* samples, int64_t streams, int64_t steps, float* memory,
                   float* probabilities) {
  using namespace silero;
  static thread_local Room room;
  for (int64_t begin = 0; begin < streams; begin += kSteps) {
    const int64_t some = std::min(kSteps, streams - begin), most = kSteps / some;
    for (int64_t step = 0; step < steps; step += most) {
      const Block block{samples + begin * steps * kStep + step * kStep, steps * kStep, some,
                        std::min(most, steps - step), memory + begin * kMemory,
                        probabilities + begin * steps + step, steps};
      listen(net, block, room);
    }
  }
}

}  // namespace conure
