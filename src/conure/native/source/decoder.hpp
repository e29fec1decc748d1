// Greedy decoding of transducers, by the rules of fused/label_step.py, and the scores of CTC's steps.
//
//     [ tokens emitted last ─> LSTM ] ─> steps looked at ─> joint ─> over the blanks to the next token of each row
//
// A row's steps are looked at some at a time, because the joint's weights are read once for all of them. The LSTM
// takes a token up when the row is looked at next: rows that are done with their chunk leave it for the next one,
// and a row that begins has the start symbol before it.
#pragma once

#include "scores.hpp"

namespace conure::greedy {

struct Heads {
  Layer encoder;           // of encoder steps, to the joint's width
  const float* embedding;  // [tokens, width]
  const Layer* cells;      // [layers], of [input | hidden]; 64 columns are 16 units' four gates: in, forget, new, out
  int64_t layers, width;   // a multiple of 16
  Layer predicted, joint;  // durations begin at the joint's column `lasting`
  int64_t tokens, lasting; // tokens with the blank, which is the last
  const int64_t* durations;
  int64_t kinds;           // of durations; 0: RNNT
  int64_t most_symbols;
  float alpha;
};

// Rows of streams.
struct Memory {
  float *hidden, *cell;  // [rows, layers, width]
  float* predicted;      // [rows, width of the joint]
  int64_t* said;         // the token that the LSTM has not taken up, or -1
  int64_t* ahead;        // steps of the next chunk already jumped over
  int64_t* decoded;      // steps so far
};

struct Chunk {
  const float* encoded;   // [rows, steps, width], rows `stride` floats apart
  const int64_t* counts;  // [rows]
  const int64_t* slots;   // [rows], in the memory
  int64_t rows, steps, width, stride;
};

// [rows, room] each, and how many of each row there are.
struct Written {
  int64_t *ids, *steps, *durations;
  float *log_probabilities, *confidences;
  int64_t* counts;
  int64_t room;
};

// Rows that go together; steps that all of them together look at, which cost little more than one where weights come
// from memory; steps that are labelled together.
constexpr int64_t kMostRows = 32, kLooks = 12, kLabelled = 48;

// Steps that a row looks at together: of those that TDT jumps over most are looked at in vain.
struct Window {
  int64_t least, most;
};
constexpr Window kJumping{1, 4}, kStepping{2, 8};

class Decoder {
 public:
  Decoder(Pool& pool, const Heads& heads) : pool_(pool), heads_(heads) {}

  void decode(const Chunk& chunk, const Memory& memory, const Written& to) {
    memory_ = &memory, written_ = &to;
    for (int64_t begin = 0; begin < chunk.rows; begin += kMostRows) {
      gather(chunk, begin, std::min(chunk.rows, begin + kMostRows));
      while (!busy_.empty()) {
        advance();
        look();
        walk();
      }
      for (const Row& row : rows_) {
        memory.ahead[row.slot] = row.time - row.count;
        memory.decoded[row.slot] += row.count;
      }
    }
  }

 private:
  struct Row {
    int64_t index, slot, count, time, repeats;
    const float* steps;       // [count, width of the joint]
    int64_t first, looks;     // of its steps among all that are looked at
  };

  Pool& pool_;
  const Heads heads_;
  const Memory* memory_ = nullptr;
  const Written* written_ = nullptr;
  std::vector<Row> rows_;
  std::vector<Row*> busy_, talking_;
  std::vector<std::pair<const Row*, int64_t>> looks_;  // row and step
  Left left_;
  Kept<float> steps_;
  Scores scores_;

  int64_t joint_width() const { return heads_.joint.depth; }

  // Rows begin..end of a chunk with their steps as the joint reads them.
  void gather(const Chunk& chunk, int64_t begin, int64_t end) {
    rows_.clear(), looks_.clear();
    std::vector<const float*> sources;
    for (int64_t i = begin; i < end; i++) {
      const int64_t slot = chunk.slots[i];
      rows_.push_back({i, slot, chunk.counts[i], memory_->ahead[slot], 0, nullptr, int64_t(sources.size()), 0});
      for (int64_t step = 0; step < chunk.counts[i]; step++)
        sources.push_back(chunk.encoded + i * chunk.stride + step * chunk.width);
      written_->counts[i] = 0;
    }
    float* to = steps_.of(sources.size() * joint_width());
    const Inputs x = left_.take(pool_, sources.size(), heads_.encoder, [&](int64_t row, float* at) {
      std::copy(sources[row], sources[row] + chunk.width, at);
      std::fill(at + chunk.width, at + heads_.encoder.depth, 0.0f);
    });
    keep(x, heads_.encoder, [&](int64_t row) { return to + row * joint_width(); });
    busy_.clear();
    for (Row& row : rows_) {
      row.steps = to + row.first * joint_width();
      if (row.time < row.count) busy_.push_back(&row);
    }
  }

  // A layer's results, each row where place(row) says.
  template <typename Place>
  void keep(const Inputs& x, const Layer& layer, const Place& place) {
    multiply(pool_, x, layer, [&](int64_t row, int64_t column, const float* sums) {
      std::copy(sums, sums + kBlock, place(row) + column);
    });
  }

  // The prediction network takes up what busy rows have said.
  void advance() {
    talking_.clear();
    for (Row* row : busy_)
      if (memory_->said[row->slot] >= 0) talking_.push_back(row);
    if (talking_.empty()) return;
    const int64_t width = heads_.width;
    for (int64_t layer = 0; layer < heads_.layers; layer++) {
      const auto remembered = [&](float* of, int64_t row, int64_t layer) {
        return of + (talking_[row]->slot * heads_.layers + layer) * width;
      };
      const Inputs x = left_.take(pool_, talking_.size(), heads_.cells[layer], [&](int64_t row, float* to) {
        const float* input = layer ? remembered(memory_->hidden, row, layer - 1)
                                   : heads_.embedding + memory_->said[talking_[row]->slot] * width;
        const float* hidden = remembered(memory_->hidden, row, layer);
        std::copy(input, input + width, to);
        std::copy(hidden, hidden + width, to + width);
      });
      multiply(pool_, x, heads_.cells[layer], [&](int64_t row, int64_t column, const float* gates) {
        const int64_t unit = column / 4;
        cell(gates, remembered(memory_->hidden, row, layer) + unit, remembered(memory_->cell, row, layer) + unit);
      });
    }
    const Inputs x = left_.take(pool_, talking_.size(), heads_.predicted, [&](int64_t row, float* to) {
      const float* hidden = memory_->hidden + (talking_[row]->slot * heads_.layers + heads_.layers - 1) * width;
      std::copy(hidden, hidden + width, to);
    });
    keep(x, heads_.predicted, [&](int64_t row) { return memory_->predicted + talking_[row]->slot * joint_width(); });
    for (const Row* row : talking_) memory_->said[row->slot] = -1;
  }

  static void cell(const float* gates, float* hidden, float* memory) {
    const Floats two = _mm512_set1_ps(2.0f), one = _mm512_set1_ps(1.0f);
    const auto tanh = [&](Floats x) { return _mm512_fmsub_ps(two, sigmoid(_mm512_mul_ps(two, x)), one); };
    const Floats in = sigmoid(load(gates)), forget = sigmoid(load(gates + kLanes));
    const Floats fresh = tanh(load(gates + 2 * kLanes)), out = sigmoid(load(gates + 3 * kLanes));
    const Floats kept = _mm512_fmadd_ps(in, fresh, _mm512_mul_ps(forget, load(memory)));
    _mm512_storeu_ps(memory, kept);
    _mm512_storeu_ps(hidden, _mm512_mul_ps(out, tanh(kept)));
  }

  // What the joint says of the next steps of each busy row.
  void look() {
    const auto [least, most] = heads_.kinds ? kJumping : kStepping;
    const int64_t window = std::clamp<int64_t>(kLooks / int64_t(busy_.size()), least, most);
    looks_.clear();
    for (Row* row : busy_) {
      row->first = looks_.size(), row->looks = std::min(window, row->count - row->time);
      for (int64_t i = 0; i < row->looks; i++) looks_.push_back({row, row->time + i});
    }
    const int64_t width = joint_width();
    const Inputs x = left_.take(pool_, looks_.size(), heads_.joint, [&](int64_t place, float* to) {
      const auto [row, step] = looks_[place];
      const float *heard = row->steps + step * width, *predicted = memory_->predicted + row->slot * width;
      for (int64_t i = 0; i < width; i += kLanes) {
        const Floats sum = _mm512_add_ps(load(heard + i), load(predicted + i));
        _mm512_storeu_ps(to + i, _mm512_max_ps(sum, _mm512_setzero_ps()));
      }
    });
    scores_.find(pool_, x, heads_.joint);
  }

  // Over the blanks, and a token written down where there is one.
  void walk() {
    pool_.each(busy_.size(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) walk(*busy_[i]);
    });
    const auto done = [](const Row* row) { return row->time >= row->count; };
    busy_.erase(std::remove_if(busy_.begin(), busy_.end(), done), busy_.end());
  }

  void walk(Row& row) {
    int64_t offset = 0, said = heads_.tokens - 1, jump = 0;
    while (offset < row.looks) {
      const int64_t look = row.first + offset;
      said = scores_.best(look, 0, heads_.lasting);
      jump = heads_.kinds ? heads_.durations[scores_.best(look, heads_.lasting, heads_.joint.columns) - heads_.lasting] : 0;
      if (said != heads_.tokens - 1) break;
      offset += std::max<int64_t>(jump, 1);
    }
    row.time += offset;
    if (offset) row.repeats = 0;
    if (offset >= row.looks) return;
    write(row, row.first + offset, said, heads_.kinds ? jump : 1);
    if (jump == 0 && ++row.repeats >= heads_.most_symbols) jump = 1;
    if (jump) row.repeats = 0;
    row.time += jump;
  }

  void write(const Row& row, int64_t look, int64_t said, int64_t lasts) {
    const Written& to = *written_;
    const int64_t at = row.index * to.room + to.counts[row.index]++;
    const Sureness sure = scores_.sureness(look, said, heads_.tokens, heads_.alpha);
    to.ids[at] = said, to.steps[at] = memory_->decoded[row.slot] + row.time, to.durations[at] = lasts;
    to.log_probabilities[at] = sure.log_probability, to.confidences[at] = sure.confidence;
    memory_->said[row.slot] = said;
  }
};

// The best label of each of `count` encoder steps [count, width], and how sure a CTC head is of it.
inline void label(Pool& pool, const Layer& head, int64_t tokens, float alpha, const float* encoded, int64_t count,
                  int64_t width, int64_t* ids, float* log_probabilities, float* confidences) {
  Left left;
  Scores scores;
  for (int64_t begin = 0; begin < count; begin += kLabelled) {
    const int64_t some = std::min(kLabelled, count - begin);
    const Inputs x = left.take(pool, some, head, [&](int64_t row, float* to) {
      const float* step = encoded + (begin + row) * width;
      std::copy(step, step + width, to);
      std::fill(to + width, to + head.depth, 0.0f);
    });
    scores.find(pool, x, head);
    pool.each(some, 1, [&](int64_t from, int64_t until) {
      for (int64_t row = from; row < until; row++) {
        const int64_t at = begin + row, best = scores.best(row, 0, head.columns);
        const Sureness sure = scores.sureness(row, best, tokens, alpha);
        ids[at] = best, log_probabilities[at] = sure.log_probability, confidences[at] = sure.confidence;
      }
    });
  }
}

}  // namespace conure::greedy
