// What Python calls. Arrays are in C order, of the types named; nobody checks their sizes here.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>

extern "C" int conure_supported() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

// Everything below is for processors with VNNI, whatever the machine that compiles it.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")
#endif

#include "attention.hpp"
#include "clips.hpp"
#include "decoder.hpp"
#include "filter.hpp"
#include "front.hpp"
#include "mel.hpp"
#include "pool.hpp"
#include "product.hpp"
#include "rows.hpp"
#include "silero.hpp"

using namespace conure;

extern "C" {

Pool* conure_pool(int threads) { return new Pool(threads); }

void conure_close(Pool* pool) { delete pool; }

void conure_normalise(Pool* pool, const float* x, int64_t rows, int64_t width, const Norm* norm, float* y) {
  pool->each(rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) normalise(x + row * width, width, *norm, y + row * width);
  });
}

void conure_quantise(Pool* pool, const float* x, int64_t rows, int64_t width, const Norm* norm, int gated,
                     const Quantised* to) {
  quantise(*pool, x, rows, width, *norm, gated, *to);
}

void conure_multiply(Pool* pool, const Quantised* x, int64_t rows, const Weight* weight, const Result* to) {
  multiply(*pool, *x, rows, *weight, *to);
}

void conure_attend(Pool* pool, const Attention* attention, const Rings* rings, const Turn* turn, const float* projected,
                   float* mixed) {
  attend(*pool, *attention, *rings, *turn, projected, mixed);
}

void conure_filter(Pool* pool, const Filter* f, float* memory, int64_t ring, const Turn* turn, const float* x, float* y) {
  filter(*pool, *f, memory, ring, *turn, x, y);
}

void conure_attend_clips(Pool* pool, const Distances* distances, const Clips* clips, const float* projected, float* mixed) {
  attend(*pool, *distances, *clips, projected, mixed);
}

void conure_filter_clips(Pool* pool, const Filter* f, const Clips* clips, int64_t before, const float* x, float* y) {
  filter(*pool, *f, *clips, before, x, y);
}

void conure_log_mel(Pool* pool, const Mel* mel, const float* samples, int64_t rows, int64_t stride, int64_t frames,
                    float* out) {
  log_mel(*pool, *mel, samples, rows, stride, frames, out);
}

greedy::Decoder* conure_decoder(Pool* pool, const greedy::Heads* heads) { return new greedy::Decoder(*pool, *heads); }

void conure_close_decoder(greedy::Decoder* decoder) { delete decoder; }

void conure_decode(greedy::Decoder* decoder, const greedy::Chunk* chunk, const greedy::Memory* memory,
                   const greedy::Written* to) {
  decoder->decode(*chunk, *memory, *to);
}

void conure_label(Pool* pool, const greedy::Layer* head, int64_t tokens, float alpha, const float* encoded, int64_t count,
                  int64_t width, int64_t* ids, float* log_probabilities, float* confidences) {
  greedy::label(*pool, *head, tokens, alpha, encoded, count, width, ids, log_probabilities, confidences);
}

void conure_front(Pool* pool, const Front* net, const Span* spans, int64_t count) {
  subsample(*pool, *net, spans, count);
}

void conure_silero(const Silero* net, const float* samples, int64_t streams, int64_t steps, float* memory,
                   float* probabilities) {
  listen(*net, samples, streams, steps, memory, probabilities);
}

}  // extern "C"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
extern "C" int conure_supported() { return 0; }
#endif
