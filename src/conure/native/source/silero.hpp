// Silero's speech detector: for each 512 samples of a stream how likely there is speech in them.
//
//     samples -> 4 frames -> magnitudes [4, 129] -> 4 convolutions over the frames -> [128] -> LSTM -> probability
//
// A convolution over a step's frames is a product for each of its results, with the taps that meet a frame: of some
// dozens of steps together, so that the weights are read for all of them. The first one, half of all operations, has 4
// results of 3 taps and is made by 6 products where that would take 10 (Winograd, 1980; Lavin and Gray, 2015): of sums
// of frames by sums of taps. The LSTM's input is a product as well; only what the LSTM makes of its own output has to
// go step by step, for all streams together.
//
// Sixteen frames are transformed at a time, each in its lane, so that what a stream hears does not depend on the others.
#pragma once

#include <cstring>
#include <vector>

#include "dense.hpp"
#include "mel.hpp"

namespace conure {

struct Silero {
  const float* window;          // [256]
  Dense first;                  // [6 * 129, 128]: sums of taps, without a bias
  const float* first_bias;      // [128]
  Dense convolutions[3];        // [3 * in, out], tap by tap
  Dense input;                  // [128, 512]: of 16 units the gates in, forget, cell, out, then the next 16
  Dense output;                 // the same of the LSTM's own output; its bias is not used
  const float* head;            // [128]
  float head_bias;
};

namespace silero {

constexpr int64_t kStep = 512, kContext = 64, kFrame = 256, kHop = 128, kFrames = 4, kWidth = 128;
constexpr int64_t kPoints = kFrame / 2, kBins = kPoints + 1, kSums = 6;
constexpr int64_t kMemory = kContext + 2 * kWidth, kGates = 4 * kWidth;
constexpr int64_t kSteps = 48;                      // together
constexpr int64_t kTransformed = kLanes / kFrames;  // steps whose frames are transformed together

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

// Rows of what is named. What is used up makes room for what comes later, so that all of it stays in a cache.
struct Room {
  Buffer sums, products, second, third, fourth, hidden;
  float *first = sums.data(), *gates = products.data();
  Room()
      : sums(kSteps * kSums * kBins),
        products(kSteps * kSums * kWidth),
        second(kSteps * 2 * kWidth / 2),
        third(kSteps * kWidth / 2),
        fourth(kSteps * kWidth),
        hidden(kSteps * kWidth) {}
};

// Context, step and its end mirrored.
inline void pad(const Block& block, int64_t row, float* to) {
  const int64_t step = row / block.streams, stream = row % block.streams;
  const float* samples = block.samples + stream * block.stride + step * kStep;
  std::memcpy(to, step ? samples - kContext : block.memory + stream * kMemory, kContext * sizeof(float));
  std::memcpy(to + kContext, samples, kStep * sizeof(float));
  for (int64_t i = 0; i < kContext; i++) to[kContext + kStep + i] = samples[kStep - 2 - i];
}

// Four frames to the six sums of them that are multiplied: interpolation at 0, 1, -1, 2, -2 and infinity of frames that
// have a frame of zeros on either side.
inline void sum_frames(const Floats* frames, Floats* to) {
  const Floats two = _mm512_set1_ps(2.0f), four = _mm512_set1_ps(4.0f), five = _mm512_set1_ps(5.0f);
  const Floats a = frames[0], b = frames[1], c = frames[2], d = frames[3];
  const Floats even = _mm512_fnmadd_ps(four, b, d), odd = _mm512_fnmadd_ps(four, a, c);
  const Floats other = _mm512_sub_ps(d, b), twice = _mm512_mul_ps(two, _mm512_sub_ps(c, a));
  to[0] = _mm512_fnmadd_ps(five, b, d);
  to[1] = _mm512_add_ps(even, odd);
  to[2] = _mm512_sub_ps(even, odd);
  to[3] = _mm512_add_ps(other, twice);
  to[4] = _mm512_sub_ps(other, twice);
  to[5] = _mm512_fmsub_ps(four, a, _mm512_mul_ps(five, c));
}

// padded [kTransformed, 640] -> sums [kTransformed, 6, 129] of their frames' magnitudes, the first `count` steps of it.
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
      z[kPlaces<kPoints>[(sample + i) / 2]] = {even, odd};
    }
  }
  transform<kPoints>(z.data());
  powers<kPoints>(z.data(), bins);
  for (int64_t bin = 0; bin < kBins; bin += kLanes) {
    Floats* some = bins + bin;
    for (int64_t i = 0; i < kLanes; i++) some[i] = root(some[i]);
    transpose(some);
    const __mmask16 kept = conure::first(kBins - bin);
    for (int64_t step = 0; step < count; step++) {
      Floats six[kSums];
      sum_frames(some + step * kFrames, six);
      for (int64_t i = 0; i < kSums; i++) _mm512_mask_storeu_ps(sums + (step * kSums + i) * kBins + bin, kept, six[i]);
    }
  }
}

inline void spectra(const Silero& net, const Block& block, float* sums) {
  alignas(64) float padded[kTransformed * (kFrames + 1) * kHop] = {};
  for (int64_t begin = 0; begin < block.rows(); begin += kTransformed) {
    const int64_t count = std::min(kTransformed, block.rows() - begin);
    for (int64_t i = 0; i < count; i++) pad(block, begin + i, padded + i * (kFrames + 1) * kHop);
    transform_steps(net, padded, count, sums + begin * kSums * kBins);
  }
}

// sums [rows, 6, 129] -> y [rows, 4, 128]
inline void convolve_first(const Silero& net, int64_t rows, Room& room) {
  for (int64_t i = 0; i < kSums; i++)
    multiply<false>({room.sums.data() + i * kBins, kSums * kBins}, rows, net.first, {i * kBins, kBins},
                    {room.products.data() + i * kWidth, kSums * kWidth});
  const Floats two = _mm512_set1_ps(2.0f), four = _mm512_set1_ps(4.0f), eight = _mm512_set1_ps(8.0f);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t at = 0; at < kWidth; at += kLanes) {
      Floats p[kSums];
      for (int64_t i = 0; i < kSums; i++) p[i] = load(room.products.data() + (row * kSums + i) * kWidth + at);
      const Floats bias = load(net.first_bias + at);
      const Floats near = _mm512_add_ps(p[1], p[2]), turned = _mm512_sub_ps(p[1], p[2]);
      const Floats far = _mm512_add_ps(p[3], p[4]), far_turned = _mm512_sub_ps(p[3], p[4]);
      const Floats y[kFrames] = {_mm512_add_ps(p[0], _mm512_add_ps(near, far)),
                                 _mm512_fmadd_ps(two, far_turned, turned), _mm512_fmadd_ps(four, far, near),
                                 _mm512_add_ps(p[5], _mm512_fmadd_ps(eight, far_turned, turned))};
      for (int64_t i = 0; i < kFrames; i++)
        _mm512_storeu_ps(room.first + (row * kFrames + i) * kWidth + at,
                         _mm512_max_ps(_mm512_add_ps(y[i], bias), _mm512_setzero_ps()));
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

// What the LSTM makes of kRows streams' output [., kWidth], for kBlocks times 16 units from unit 16 * `block` on.
template <int kRows, int kBlocks>
void advance(const Dense& weight, const float* hidden, const float* gates, int64_t block, float* memory, float* spoken) {
  Floats sums[kRows][kBlocks][4];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 6
    for (int b = 0; b < kBlocks; b++)
#pragma GCC unroll 4
      for (int g = 0; g < 4; g++) sums[r][b][g] = load(gates + r * kGates + ((block + b) * 4 + g) * kLanes);
  const float* values = weight.values + block * 4 * kLanes * kWidth;
  for (int64_t k = 0; k < kWidth; k++, values += kDenseBlock)
#pragma GCC unroll 6
    for (int b = 0; b < kBlocks; b++)
#pragma GCC unroll 4
      for (int g = 0; g < 4; g++) {
        const Floats column = load(values + (2 * b + g / 2) * kDenseBlock * kWidth + g % 2 * kLanes);
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
  static constexpr Advance kAdvance[] = {advance_all<1, 2>, advance_all<2, 2>, advance_all<3, 2>,
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
  spectra(net, block, room.sums.data());
  convolve_first(net, rows, room);
  convolve(net.convolutions[0], room.first, rows, kFrames, 2, room.second.data());
  convolve(net.convolutions[1], room.second.data(), rows, 2, 2, room.third.data());
  convolve(net.convolutions[2], room.third.data(), rows, 1, 1, room.fourth.data());
  multiply<false>({room.fourth.data(), kWidth}, rows, net.input, {0, kWidth}, {room.gates, kGates});
  float *hidden = room.hidden.data(), *spoken = room.fourth.data();  // whose rows are used up by now
  for (int64_t stream = 0; stream < block.streams; stream++)
    std::memcpy(hidden + stream * kWidth, block.memory + stream * kMemory + kContext, kWidth * sizeof(float));
  for (int64_t step = 0; step < block.steps; step++) {
    recur(net.output, block.streams, hidden, room.gates + step * block.streams * kGates, block.memory, spoken);
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
