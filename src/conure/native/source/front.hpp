// The subsampling before an encoder: three convolutions of stride 2 over frames and bands, a ReLU after each.
//
//     mel [T, F] -> 3 x 3, channels -> 3 x 3 depthwise, mix of channels -> the same again -> [T / 8, channels * F / 8]
//
// Channels lie beside each other, 32 at a time through the first two convolutions, so that what one frame of the second
// reads of the first stays in the nearest cache, and the taps in registers. Of each convolution's results the last
// frames are kept. The mixes are nine tenths of all operations: in floats, or of rows rounded to bytes.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "dense.hpp"
#include "pool.hpp"
#include "product.hpp"

namespace conure {

// Of each position's channels all channels again: in bytes where there are such weights.
struct Mix {
  Dense floats;
  Weight bytes;
};

struct Front {
  const float* taps[3];     // [9, channels]
  const float* biases[3];   // [channels]
  Mix mixes[2];             // after the second and the third
  int64_t features, channels;
  int64_t kept;             // channels that are written, the others fill up a block
  int64_t lead;             // zeros before the first frame and the first band; there is one after the last
};

// Steps of a clip or of a piece of one: its frames, those steps that are wanted and where they go.
struct Span {
  const float* mel;  // [frames, features]
  int64_t frames, first, steps;
  float* out;  // [steps, kept * bands]
};

namespace front {

constexpr int64_t kTaps = 3, kChannels = 32, kRing = 4, kTogether = 4;  // kTogether: steps whose last mix is one product

// How many remain of so many frames or bands.
inline int64_t halved(int64_t size, int64_t lead) { return (size + lead + 1 - kTaps) / 2 + 1; }

// The last frames of a convolution's results [bands, channels], a few channels at a time, between bands of zeros.
class Frames {
 public:
  Frames(int64_t bands, int64_t channels, int64_t lead)
      : lead_(lead), stride_(channels), size_((lead + bands + 1) * channels), values_((kRing + 1) * size_) {}
  // Its first band; a frame that is not there is zeros.
  float* at(int64_t frame) { return values_.data() + frame % kRing * size_ + lead_ * stride_; }
  const float* read(int64_t frame, int64_t count) {
    return frame < 0 || frame >= count ? values_.data() + kRing * size_ : at(frame) - lead_ * stride_;
  }

 private:
  int64_t lead_, stride_, size_;
  Buffer values_;
};

using Bands = std::array<int64_t, 4>;  // of the mel and after each convolution

inline Bands bands_of(const Front& net) {
  Bands all{net.features};
  for (int i = 0; i < 3; i++) all[i + 1] = halved(all[i], net.lead);
  return all;
}

// What a thread needs to go through spans.
struct Room {
  Bands bands;
  int64_t channels, lead, most;
  std::vector<Frames> first;  // of 32 channels each
  Frames second;
  Buffer mel, rows, third;
  std::vector<int8_t> bytes;
  std::vector<float> scales;
  std::vector<int32_t> sums;

  explicit Room(const Front& net)
      : bands(bands_of(net)),
        channels(net.channels),
        lead(net.lead),
        most(std::max(bands[2], kTogether * bands[3])),
        first(channels / kChannels, Frames(bands[1], kChannels, lead)),
        second(bands[2], channels, lead),
        mel(kTaps * (lead + net.features + 1)),
        rows(most * channels),
        third(most * channels),
        bytes(most * channels),
        scales(most),
        sums(most) {}
  bool fits(const Front& net) const {
    return bands == bands_of(net) && channels == net.channels && lead == net.lead;
  }
};

// A convolution of 32 channels from `column` on: three frames -> [bands, channels], `apart` floats from band to band.
// The frames' channels are those of the result, or there is only one.
template <bool kOne, bool kRelu>
void convolve(const Front& net, int layer, int64_t column, const float* const* frames, int64_t stride, int64_t bands,
              float* out, int64_t apart) {
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
        sums[v] = _mm512_fmadd_ps(kOne ? _mm512_set1_ps(*at) : load(at + v * kLanes), taps[k][v], sums[v]);
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; v++)
      _mm512_storeu_ps(out + band * apart + v * kLanes, kRelu ? _mm512_max_ps(sums[v], _mm512_setzero_ps()) : sums[v]);
  }
}

inline void convolve_first(const Front& net, const Span& span, int64_t frame, Room& room) {
  const int64_t size = net.lead + net.features + 1;
  const float* frames[kTaps];
  for (int64_t t = 0; t < kTaps; t++) {
    const int64_t from = 2 * frame - net.lead + t;
    float* to = room.mel.data() + t * size;
    if (from < 0 || from >= span.frames)
      std::memset(to + net.lead, 0, net.features * sizeof(float));
    else
      std::memcpy(to + net.lead, span.mel + from * net.features, net.features * sizeof(float));
    frames[t] = to;
  }
  for (int64_t column = 0; column < net.channels; column += kChannels)
    convolve<true, true>(net, 0, column, frames, 1, room.bands[1], room.first[column / kChannels].at(frame), kChannels);
}

// from [rows, channels] -> out [rows, channels]
inline void mix(const Mix& own, const float* from, int64_t rows, Room& room, float* out) {
  const int64_t channels = own.floats.columns;
  if (!own.bytes.values) {
    multiply<true>({from, channels}, rows, own.floats, {0, channels}, {out, channels});
    return;
  }
  const Tiles tiles(rows);
  const Quantised x{room.bytes.data(), room.scales.data(), room.sums.data()};
  for (int64_t i = 0; i < tiles.count; i++)
    for (int64_t row = tiles.begin(i); row < tiles.begin(i + 1); row++)
      quantise(from + row * channels, channels,
               x.values + tiles.begin(i) * channels + (row - tiles.begin(i)) * kQuad, tiles.rows(i) * kQuad,
               x.scales[row], x.sums[row]);
  for (int64_t column = 0; column < channels; column += kBlock)
    for (int64_t i = 0; i < tiles.count; i++)
      kTiles[tiles.rows(i) - 1](x, tiles.begin(i), own.bytes, column, nullptr, {out, channels, After::kRelu});
}

// The second convolution's frame, of the first one's that are made as far as `made`.
inline void convolve_second(const Front& net, const Span& span, int64_t frame, int64_t& made, Room& room) {
  const int64_t count = halved(span.frames, net.lead), begin = 2 * frame - net.lead;
  for (made = std::max(made, std::max(begin, int64_t(0))); made < std::min(begin + kTaps, count); made++)
    convolve_first(net, span, made, room);
  for (int64_t column = 0; column < net.channels; column += kChannels) {
    const float* frames[kTaps];
    for (int64_t t = 0; t < kTaps; t++) frames[t] = room.first[column / kChannels].read(begin + t, count);
    convolve<false, false>(net, 1, column, frames, kChannels, room.bands[2], room.rows.data() + column, net.channels);
  }
  mix(net.mixes[0], room.rows.data(), room.bands[2], room, room.second.at(frame));
}

// Steps as [bands, channels] -> [channels, bands], of the channels that are kept.
inline void write(const Front& net, const Room& room, int64_t steps, float* out) {
  const int64_t channels = room.channels, bands = room.bands[3];
  const float* rows = room.rows.data();
  for (int64_t step = 0; step < steps; step++)
    for (int64_t channel = 0; channel < net.kept; channel++)
      for (int64_t band = 0; band < bands; band++)
        *out++ = rows[(step * bands + band) * channels + channel];
}

inline void subsample(const Front& net, const Span& span, Room& room) {
  const int64_t firsts = halved(span.frames, net.lead), seconds = halved(firsts, net.lead), channels = net.channels;
  int64_t first_made = 0, second_made = 0;
  for (int64_t begin = 0; begin < span.steps; begin += kTogether) {
    const int64_t some = std::min(kTogether, span.steps - begin);
    for (int64_t i = 0; i < some; i++) {
      const int64_t from = 2 * (span.first + begin + i) - net.lead;
      for (second_made = std::max(second_made, std::max(from, int64_t(0)));
           second_made < std::min(from + kTaps, seconds); second_made++)
        convolve_second(net, span, second_made, first_made, room);
      const float* frames[kTaps];
      for (int64_t column = 0; column < channels; column += kChannels) {
        for (int64_t t = 0; t < kTaps; t++) frames[t] = room.second.read(from + t, seconds) + column;
        convolve<false, false>(net, 2, column, frames, channels, room.bands[3],
                               room.third.data() + i * room.bands[3] * channels + column, channels);
      }
    }
    mix(net.mixes[1], room.third.data(), some * room.bands[3], room, room.rows.data());
    write(net, room, some, span.out + begin * net.kept * room.bands[3]);
  }
}

}  // namespace front

inline void subsample(Pool& pool, const Front& net, const Span* spans, int64_t count) {
  pool.each(count, 1, [&](int64_t begin, int64_t end) {
    static thread_local std::unique_ptr<front::Room> room;
    if (!room || !room->fits(net)) room = std::make_unique<front::Room>(net);
    for (int64_t i = begin; i < end; i++) front::subsample(net, spans[i], *room);
  });
}

}  // namespace conure
