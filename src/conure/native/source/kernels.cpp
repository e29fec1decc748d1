// The C interface for Python. Arrays are C-contiguous, of the declared types; their sizes are not checked.
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

// The code below needs AVX-512 VNNI on the machine that runs it, not on the one that compiles it.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")
#endif

#include "attention.hpp"
#include "clip_attention.hpp"
#include "decoder.hpp"
#include "int8_matmul.hpp"
#include "mel.hpp"
#include "quantise.hpp"
#include "silero.hpp"
#include "stream_filter.hpp"
#include "subsampling.hpp"
#include "thread_pool.hpp"

using namespace conure;

extern "C" {

ThreadPool* conure_open_pool(int threads) { return new ThreadPool(threads); }

void conure_close_pool(ThreadPool* pool) { delete pool; }

void conure_normalise(ThreadPool* pool, const float* x, int64_t rows, int64_t width, const Norm* norm, float* y) {
  pool->parallel_for(rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) normalise(x + row * width, width, *norm, y + row * width);
  });
}

void conure_quantise(ThreadPool* pool, const float* x, int64_t rows, int64_t width, const Norm* norm, int gated,
                     const Quantised* out) {
  quantise(*pool, x, rows, width, *norm, gated, *out);
}

void conure_multiply(ThreadPool* pool, const Quantised* x, int64_t rows, const Weight* weight, const Result* result) {
  multiply(*pool, *x, rows, *weight, *result);
}

void conure_attend(ThreadPool* pool, const Attention* attention, const Rings* rings, const StreamStep* stream_step,
                   const float* projected, float* mixed) {
  attend(*pool, *attention, *rings, *stream_step, projected, mixed);
}

void conure_filter(ThreadPool* pool, const Filter* f, float* memory, int64_t ring, const StreamStep* stream_step,
                   const float* x, float* y) {
  filter(*pool, *f, memory, ring, *stream_step, x, y);
}

void conure_attend_clips(ThreadPool* pool, const Distances* distances, const Clips* clips, const float* projected,
                         float* mixed) {
  attend(*pool, *distances, *clips, projected, mixed);
}

void conure_filter_clips(ThreadPool* pool, const Filter* f, const Clips* clips, int64_t before, const float* x,
                         float* y) {
  filter(*pool, *f, *clips, before, x, y);
}

void conure_log_mel(ThreadPool* pool, const Mel* mel, const float* samples, int64_t rows, int64_t stride,
                    int64_t frames, float* out) {
  log_mel(*pool, *mel, samples, rows, stride, frames, out);
}

greedy::Decoder* conure_open_decoder(ThreadPool* pool, const greedy::Heads* heads) {
  return new greedy::Decoder(*pool, *heads);
}

void conure_close_decoder(greedy::Decoder* decoder) { delete decoder; }

void conure_decode(greedy::Decoder* decoder, const greedy::Chunk* chunk, const greedy::StreamState* state,
                   const greedy::TokenColumns* tokens) {
  decoder->decode(*chunk, *state, *tokens);
}

void conure_label(ThreadPool* pool, const greedy::Layer* head, int64_t tokens, float alpha, const float* encoded,
                  int64_t count, int64_t width, int64_t* ids, float* log_probabilities, float* confidences) {
  greedy::label(*pool, *head, tokens, alpha, encoded, count, width, ids, log_probabilities, confidences);
}

void conure_subsample(ThreadPool* pool, const SubsamplingNet* net, const Span* spans, int64_t count) {
  subsample(*pool, *net, spans, count);
}

void conure_detect_speech(const Silero* net, const float* samples, int64_t streams, int64_t steps, float* state,
                          float* probabilities) {
  detect_speech(*net, samples, streams, steps, state, probabilities);
}

}  // extern "C"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
extern "C" int conure_supported() { return 0; }
#endif
