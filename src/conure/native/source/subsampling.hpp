// The encoder's subsampling: three convolutions of stride 2 over frames and mel bands, each followed by a ReLU.
//
//     mel [T, F] -> 3 x 3 -> 3 x 3 depthwise, pointwise -> 3 x 3 depthwise, pointwise -> [T / 8, channels * F / 8]
//
// Channels are the innermost axis. The first two convolutions process 32 channels at a time, so that the frames one
// output reads stay in the L1 cache and the taps in registers. Each convolution keeps its last output frames in a ring.
// The pointwise convolutions are 90 % of all operations and run in float32 or int8.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "float_matmul.hpp"
#include "int8_matmul.hpp"
#include "thread_pool.hpp"

namespace conure {

// A pointwise convolution: int8 if `bytes` has weights, else float32.
struct Pointwise {
  FloatMatrix floats;
  Weight bytes;
};

struct SubsamplingNet {
  const float* taps[3];    // [9, channels]
  const float* biases[3];  // [channels]
  Pointwise pointwise[2];  // after the second and the third convolution
  int64_t features, channels;
  int64_t real_channels;   // channels that are written; the others pad a block
  int64_t lead;            // zeros before the first frame and the first band; one follows the last
};

// A range of output steps of some mel frames.
struct Span {
  const float* mel;  // [frames, features]
  int64_t frames, first, steps;
  float* out;  // [steps, real_channels * bands]
};

namespace subsampling {

constexpr int64_t kTaps = 3, kChannels = 32, kRing = 4, kStepsPerProduct = 4;

// The number of frames or bands after one convolution.
inline int64_t convolved_size(int64_t size, int64_t lead) { return (size + lead + 1 - kTaps) / 2 + 1; }

// Ring of a convolution's last output frames [bands, channels], each padded with bands of zeros.
class FrameRing {
 public:
  FrameRing(int64_t bands, int64_t channels, int64_t lead)
      : lead_(lead), stride_(channels), size_((lead + bands + 1) * channels), values_((kRing + 1) * size_) {}
  // at: the first band of a frame. read: the same with padding; frames beyond the edges are zeros.
  float* at(int64_t frame) { return values_.data() + frame % kRing * size_ + lead_ * stride_; }
  const float* read(int64_t frame, int64_t count) {
    return frame < 0 || frame >= count ? values_.data() + kRing * size_ : at(frame) - lead_ * stride_;
  }

 private:
  int64_t lead_, stride_, size_;
  Buffer values_;
};

using Bands = std::array<int64_t, 4>;  // number of bands of the mel and after each convolution

inline Bands bands_of(const SubsamplingNet& net) {
  Bands bands{net.features};
  for (int i = 0; i < 3; i++) bands[i + 1] = convolved_size(bands[i], net.lead);
  return bands;
}

// Buffers of one thread.
struct Workspace {
  Bands bands;
  int64_t channels, lead, max_rows;
  std::vector<FrameRing> first;  // 32 channels each
  FrameRing second;
  Buffer mel, rows, third;
  std::vector<int8_t> bytes;
  std::vector<float> scales;
  std::vector<int32_t> sums;

  explicit Workspace(const SubsamplingNet& net)
      : bands(bands_of(net)),
        channels(net.channels),
        lead(net.lead),
        max_rows(std::max(bands[2], kStepsPerProduct * bands[3])),
        first(channels / kChannels, FrameRing(bands[1], kChannels, lead)),
        second(bands[2], channels, lead),
        mel(kTaps * (lead + net.features + 1)),
        rows(max_rows * channels),
        third(max_rows * channels),
        bytes(max_rows * channels),
        scales(max_rows),
        sums(max_rows) {}
  bool fits(const SubsamplingNet& net) const {
    return bands == bands_of(net) && channels == net.channels && lead == net.lead;
  }
};

// Convolves 32 channels from `column` on: three frames -> [bands, channels], `band_stride` floats per band.
// The input is depthwise, or a single channel (kOne).
template <bool kSingleChannel, bool kRelu>
void convolve(const SubsamplingNet& net, int layer, int64_t column, const float* const* frames, int64_t stride,
              int64_t bands, float* out, int64_t band_stride) {
  constexpr int kVectors = kChannels / kLanes;
  Floats taps[kTaps * kTaps][kVectors], bias[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; v++) {
    bias[v] = load(net.biases[layer] + column + v * kLanes);
#pragma GCC unroll 9
    for (int k = 0; k < kTaps * kTaps; k++) taps[k][v] = load(net.taps[layer] + k * net.channels + column + v * kLanes);
  }
  for (int64_t band = 0; band < bands; band++) {
    Floats sums[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++) sums[v] = bias[v];
#pragma GCC unroll 9
    for (int k = 0; k < kTaps * kTaps; k++) {
      const float* at = frames[k / kTaps] + (2 * band + k % kTaps) * stride;
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; v++)
        sums[v] = _mm512_fmadd_ps(kSingleChannel ? _mm512_set1_ps(*at) : load(at + v * kLanes), taps[k][v], sums[v]);
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++)
      _mm512_storeu_ps(out + band * band_stride + v * kLanes,
                       kRelu ? _mm512_max_ps(sums[v], _mm512_setzero_ps()) : sums[v]);
  }
}

inline void convolve_first(const SubsamplingNet& net, const Span& span, int64_t frame, Workspace& workspace) {
  const int64_t size = net.lead + net.features + 1;
  const float* frames[kTaps];
  for (int64_t t = 0; t < kTaps; t++) {
    const int64_t from = 2 * frame - net.lead + t;
    float* row = workspace.mel.data() + t * size;
    if (from < 0 || from >= span.frames)
      std::memset(row + net.lead, 0, net.features * sizeof(float));
    else
      std::memcpy(row + net.lead, span.mel + from * net.features, net.features * sizeof(float));
    frames[t] = row;
  }
  for (int64_t column = 0; column < net.channels; column += kChannels)
    convolve<true, true>(net, 0, column, frames, 1, workspace.bands[1],
                         workspace.first[column / kChannels].at(frame), kChannels);
}

// from [rows, channels] -> out [rows, channels]
inline void pointwise(const Pointwise& weights, const float* from, int64_t rows, Workspace& workspace, float* out) {
  const int64_t channels = weights.floats.columns;
  if (!weights.bytes.values) {
    multiply<true>({from, channels}, rows, weights.floats, {0, channels}, {out, channels});
    return;
  }
  const Tiles tiles(rows);
  const Quantised x{workspace.bytes.data(), workspace.scales.data(), workspace.sums.data()};
  for (int64_t i = 0; i < tiles.count; i++)
    for (int64_t row = tiles.begin(i); row < tiles.begin(i + 1); row++)
      quantise(from + row * channels, channels,
               x.values + tiles.begin(i) * channels + (row - tiles.begin(i)) * kQuad, tiles.rows(i) * kQuad,
               x.scales[row], x.sums[row]);
  for (int64_t column = 0; column < channels; column += kBlock)
    for (int64_t i = 0; i < tiles.count; i++)
      kTiles[tiles.rows(i) - 1](x, tiles.begin(i), weights.bytes, column, nullptr, {out, channels, Epilogue::kRelu});
}

// Computes a frame of the second convolution, and frames of the first one that it needs from `next` on.
inline void convolve_second(const SubsamplingNet& net, const Span& span, int64_t frame, int64_t& next,
                            Workspace& workspace) {
  const int64_t count = convolved_size(span.frames, net.lead), begin = 2 * frame - net.lead;
  for (next = std::max(next, std::max(begin, int64_t(0))); next < std::min(begin + kTaps, count); next++)
    convolve_first(net, span, next, workspace);
  for (int64_t column = 0; column < net.channels; column += kChannels) {
    const float* frames[kTaps];
    for (int64_t t = 0; t < kTaps; t++) frames[t] = workspace.first[column / kChannels].read(begin + t, count);
    convolve<false, false>(net, 1, column, frames, kChannels, workspace.bands[2], workspace.rows.data() + column,
                           net.channels);
  }
  pointwise(net.pointwise[0], workspace.rows.data(), workspace.bands[2], workspace, workspace.second.at(frame));
}

// Transposes steps from [bands, channels] to [channels, bands], without padding channels.
inline void write(const SubsamplingNet& net, const Workspace& workspace, int64_t steps, float* out) {
  const int64_t channels = workspace.channels, bands = workspace.bands[3];
  const float* rows = workspace.rows.data();
  for (int64_t step = 0; step < steps; step++)
    for (int64_t channel = 0; channel < net.real_channels; channel++)
      for (int64_t band = 0; band < bands; band++)
        *out++ = rows[(step * bands + band) * channels + channel];
}

inline void subsample(const SubsamplingNet& net, const Span& span, Workspace& workspace) {
  const int64_t firsts = convolved_size(span.frames, net.lead), seconds = convolved_size(firsts, net.lead);
  const int64_t channels = net.channels;
  int64_t next_first = 0, next_second = 0;
  for (int64_t begin = 0; begin < span.steps; begin += kStepsPerProduct) {
    const int64_t count = std::min(kStepsPerProduct, span.steps - begin);
    for (int64_t i = 0; i < count; i++) {
      const int64_t from = 2 * (span.first + begin + i) - net.lead;
      for (next_second = std::max(next_second, std::max(from, int64_t(0)));
           next_second < std::min(from + kTaps, seconds); next_second++)
        convolve_second(net, span, next_second, next_first, workspace);
      const float* frames[kTaps];
      for (int64_t column = 0; column < channels; column += kChannels) {
        for (int64_t t = 0; t < kTaps; t++) frames[t] = workspace.second.read(from + t, seconds) + column;
        convolve<false, false>(net, 2, column, frames, channels, workspace.bands[3],
                               workspace.third.data() + i * workspace.bands[3] * channels + column, channels);
      }
    }
    pointwise(net.pointwise[1], workspace.third.data(), count * workspace.bands[3], workspace, workspace.rows.data());
    write(net, workspace, count, span.out + begin * net.real_channels * workspace.bands[3]);
  }
}

}  // namespace subsampling

inline void subsample(ThreadPool& pool, const SubsamplingNet& net, const Span* spans, int64_t count) {
  pool.parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    static thread_local std::unique_ptr<subsampling::Workspace> workspace;
    if (!workspace || !workspace->fits(net)) workspace = std::make_unique<subsampling::Workspace>(net);
    for (int64_t i = begin; i < end; i++) subsampling::subsample(net, spans[i], *workspace);
  });
}

}  // namespace conure
