// What a head says of rows: the best column of each, and of some how probable it is and how sure the head is of it.
#pragma once

#include <cmath>

#include "layer.hpp"

namespace conure::greedy {

struct Sureness {
  float log_probability, confidence;
};

// Of the columns of a head's layer: tokens, and where TDT predicts them durations, which begin a block. What fills
// blocks up has so low a bias that it never wins and that its probability is 0.
class Scores {
 public:
  // Logits of rows, and the best of each of their blocks.
  void find(Pool& pool, const Inputs& x, const Layer& head) {
    columns_ = head.columns, blocks_ = head.columns / kBlock;
    logits_ = logits_room_.of(x.count * columns_), best_ = best_room_.of(x.count * blocks_);
    multiply(pool, x, head, [&](int64_t row, int64_t column, const float* sums) {
      float* to = logits_ + row * columns_ + column;
      Floats most = load(sums);
      for (int v = 0; v < kVectors; v++) {
        const Floats part = load(sums + v * kLanes);
        most = _mm512_max_ps(most, part);
        _mm512_storeu_ps(to + v * kLanes, part);
      }
      best_[row * blocks_ + column / kBlock] = _mm512_reduce_max_ps(most);
    });
  }

  // The first of a row's largest columns in begin..end, which are blocks.
  int64_t best(int64_t row, int64_t begin, int64_t end) const {
    const float* of_blocks = best_ + row * blocks_;
    const int64_t block = std::max_element(of_blocks + begin / kBlock, of_blocks + end / kBlock) - of_blocks;
    const float* logits = logits_ + row * columns_ + block * kBlock;
    return block * kBlock + (std::max_element(logits, logits + kBlock) - logits);
  }

  // Of the best of a row's first `tokens` columns, for Tsallis' entropy of order `alpha`; see decoding/confidence.py.
  Sureness sureness(int64_t row, int64_t best, int64_t tokens, float alpha) const {
    const float* logits = logits_ + row * columns_;
    const Floats most = _mm512_set1_ps(logits[best]), order = _mm512_set1_ps(alpha);
    Floats all = _mm512_setzero_ps(), powers = _mm512_setzero_ps();
    for (int64_t i = 0; i < tokens; i += kLanes) {
      const Floats behind = _mm512_sub_ps(load(logits + i), most);
      all = _mm512_add_ps(all, exp(behind));
      powers = _mm512_add_ps(powers, exp(_mm512_mul_ps(behind, order)));
    }
    const float log_probability = -std::log(_mm512_reduce_add_ps(all));
    const float power = _mm512_reduce_add_ps(powers) * std::exp(alpha * log_probability);
    return {log_probability, 1 - (power - 1) / (std::pow(float(tokens), 1 - alpha) - 1)};
  }

 private:
  Kept<float> logits_room_, best_room_;
  float *logits_ = nullptr, *best_ = nullptr;
  int64_t columns_ = 0, blocks_ = 0;
};

}  // namespace conure::greedy
