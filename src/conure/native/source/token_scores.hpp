// Logits of a decoder head: the best column of each row, and the log-probability and confidence of selected rows.
#pragma once

#include <cmath>

#include "decoder_layer.hpp"

namespace conure::greedy {

struct TokenScore {
  float log_probability, confidence;
};

// Columns are tokens, followed by durations for TDT, which begin at a new block. The bias of padding columns is so low
// that they are never the best and their probability is 0.
class Scores {
 public:
  // Computes the logits of rows, and the largest logit of each block.
  void compute(ThreadPool& pool, const Inputs& x, const Layer& head) {
    columns_ = head.columns, blocks_ = head.columns / kBlock;
    logits_ = logits_buffer_.reserve(x.count * columns_), block_best_ = best_buffer_.reserve(x.count * blocks_);
    multiply(pool, x, head, [&](int64_t row, int64_t column, const float* sums) {
      float* out = logits_ + row * columns_ + column;
      Floats largest = load(sums);
      for (int v = 0; v < kVectors; v++) {
        const Floats values = load(sums + v * kLanes);
        largest = _mm512_max_ps(largest, values);
        _mm512_storeu_ps(out + v * kLanes, values);
      }
      block_best_[row * blocks_ + column / kBlock] = _mm512_reduce_max_ps(largest);
    });
  }

  // The column of a row's largest logit in begin..end, both multiples of kBlock; the first one if there are several.
  int64_t best(int64_t row, int64_t begin, int64_t end) const {
    const float* by_block = block_best_ + row * blocks_;
    const int64_t block = std::max_element(by_block + begin / kBlock, by_block + end / kBlock) - by_block;
    const float* logits = logits_ + row * columns_ + block * kBlock;
    return block * kBlock + (std::max_element(logits, logits + kBlock) - logits);
  }

  // Log-probability and confidence of column `best` among the first `tokens` columns, by the Tsallis entropy of order
  // `alpha`; see decoding/confidence.py.
  TokenScore token_score(int64_t row, int64_t best, int64_t tokens, float alpha) const {
    const float* logits = logits_ + row * columns_;
    const Floats largest = _mm512_set1_ps(logits[best]), order = _mm512_set1_ps(alpha);
    Floats sum = _mm512_setzero_ps(), powers = _mm512_setzero_ps();
    for (int64_t i = 0; i < tokens; i += kLanes) {
      const Floats shifted = _mm512_sub_ps(load(logits + i), largest);
      sum = _mm512_add_ps(sum, exp(shifted));
      powers = _mm512_add_ps(powers, exp(_mm512_mul_ps(shifted, order)));
    }
    const float log_probability = -std::log(_mm512_reduce_add_ps(sum));
    const float power = _mm512_reduce_add_ps(powers) * std::exp(alpha * log_probability);
    return {log_probability, 1 - (power - 1) / (std::pow(float(tokens), 1 - alpha) - 1)};
  }

 private:
  ReusedBuffer<float> logits_buffer_, best_buffer_;
  float *logits_ = nullptr, *block_best_ = nullptr;
  int64_t columns_ = 0, blocks_ = 0;
};

}  // namespace conure::greedy
