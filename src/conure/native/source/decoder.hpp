// Greedy transducer decoding by the rules of fused/label_step.py, and the labels of CTC steps.
//
//     [ last emitted tokens ─> LSTM ] ─> window of steps ─> joint ─> skip blanks to the next token of each row
//
// The joint scores a window of steps per row, because its weights are read once for all of them. The LSTM consumes a
// token when the row is scored next: a row that has finished its chunk leaves its last token for the next chunk. A new
// row begins with the start symbol.
#pragma once

#include "token_scores.hpp"

namespace conure::greedy {

struct Heads {
  Layer encoder;           // projects encoder steps to the joint's width
  const float* embedding;  // [tokens, width]
  const Layer* cells;      // [layers], input [input | hidden]; 64 columns: gates in, forget, new, out of 16 units
  int64_t layers, width;   // a multiple of 16
  Layer predicted, joint;  // durations begin at the joint's column `durations_column`
  int64_t tokens, durations_column;  // tokens include the blank, which is the last
  const int64_t* durations;
  int64_t duration_count;           // number of durations; 0 for RNNT
  int64_t max_symbols;
  float alpha;
};

// Decoder state by slot.
struct StreamState {
  float *hidden, *cell;  // [rows, layers, width]
  float* predicted;      // [rows, width of the joint]
  int64_t* last_token;         // the token that the LSTM has not consumed yet, or -1
  int64_t* skip;        // steps of the next chunk that a TDT duration skips
  int64_t* decoded;      // encoder steps so far
};

struct Chunk {
  const float* encoded;   // [rows, steps, width], row stride `stride` floats
  const int64_t* counts;  // [rows]
  const int64_t* slots;   // [rows], slots in the state
  int64_t rows, steps, width, stride;
};

// Emitted tokens: columns [rows, room] each, and the number of each row's tokens [rows].
struct TokenColumns {
  int64_t *ids, *steps, *durations;
  float *log_probabilities, *confidences;
  int64_t* counts;
  int64_t capacity;
};

// kMaxRows: rows of one batch. kMaxLookups: joint inputs of one batch; they cost little more than one, because the
// weights come from memory. kLabelSteps: CTC steps of one batch.
constexpr int64_t kMaxRows = 32, kMaxLookups = 12, kLabelSteps = 48;

// Limits of a row's window. TDT skips most steps, so a large window would be wasted there.
struct Window {
  int64_t min_steps, max_steps;
};
constexpr Window kTdtWindow{1, 4}, kRnntWindow{2, 8};

class Decoder {
 public:
  Decoder(ThreadPool& pool, const Heads& heads) : pool_(pool), heads_(heads) {}

  void decode(const Chunk& chunk, const StreamState& state, const TokenColumns& tokens) {
    state_ = &state, tokens_ = &tokens;
    for (int64_t begin = 0; begin < chunk.rows; begin += kMaxRows) {
      gather(chunk, begin, std::min(chunk.rows, begin + kMaxRows));
      while (!busy_.empty()) {
        advance_predictor();
        score_steps();
        skip_blanks();
      }
      for (const Row& row : rows_) {
        state.skip[row.slot] = row.time - row.count;
        state.decoded[row.slot] += row.count;
      }
    }
  }

 private:
  struct Row {
    int64_t index, slot, count, time, repeats;
    const float* steps;       // [count, width of the joint]
    int64_t first, scored;    // its first joint input and their number
  };

  ThreadPool& pool_;
  const Heads heads_;
  const StreamState* state_ = nullptr;
  const TokenColumns* tokens_ = nullptr;
  std::vector<Row> rows_;
  std::vector<Row*> busy_, emitting_;
  std::vector<std::pair<const Row*, int64_t>> lookups_;  // row and step of each joint input
  InputRows inputs_;
  ReusedBuffer<float> steps_;
  Scores scores_;

  int64_t joint_width() const { return heads_.joint.depth; }

  // Projects the encoder steps of rows begin..end of a chunk to the joint's width.
  void gather(const Chunk& chunk, int64_t begin, int64_t end) {
    rows_.clear(), lookups_.clear();
    std::vector<const float*> sources;
    for (int64_t i = begin; i < end; i++) {
      const int64_t slot = chunk.slots[i];
      rows_.push_back({i, slot, chunk.counts[i], state_->skip[slot], 0, nullptr, int64_t(sources.size()), 0});
      for (int64_t step = 0; step < chunk.counts[i]; step++)
        sources.push_back(chunk.encoded + i * chunk.stride + step * chunk.width);
      tokens_->counts[i] = 0;
    }
    float* out = steps_.reserve(sources.size() * joint_width());
    const Inputs x = inputs_.prepare(pool_, sources.size(), heads_.encoder, [&](int64_t row, float* at) {
      std::copy(sources[row], sources[row] + chunk.width, at);
      std::fill(at + chunk.width, at + heads_.encoder.depth, 0.0f);
    });
    write_rows(x, heads_.encoder, [&](int64_t row) { return out + row * joint_width(); });
    busy_.clear();
    for (Row& row : rows_) {
      row.steps = out + row.first * joint_width();
      if (row.time < row.count) busy_.push_back(&row);
    }
  }

  // Writes a layer's output rows to place(row).
  template <typename Place>
  void write_rows(const Inputs& x, const Layer& layer, const Place& place) {
    multiply(pool_, x, layer, [&](int64_t row, int64_t column, const float* sums) {
      std::copy(sums, sums + kBlock, place(row) + column);
    });
  }

  // Runs the prediction network on the last tokens of busy rows.
  void advance_predictor() {
    emitting_.clear();
    for (Row* row : busy_)
      if (state_->last_token[row->slot] >= 0) emitting_.push_back(row);
    if (emitting_.empty()) return;
    const int64_t width = heads_.width;
    for (int64_t layer = 0; layer < heads_.layers; layer++) {
      const auto layer_state = [&](float* of, int64_t row, int64_t layer) {
        return of + (emitting_[row]->slot * heads_.layers + layer) * width;
      };
      const Inputs x = inputs_.prepare(pool_, emitting_.size(), heads_.cells[layer], [&](int64_t row, float* out) {
        const float* input = layer ? layer_state(state_->hidden, row, layer - 1)
                                   : heads_.embedding + state_->last_token[emitting_[row]->slot] * width;
        const float* hidden = layer_state(state_->hidden, row, layer);
        std::copy(input, input + width, out);
        std::copy(hidden, hidden + width, out + width);
      });
      multiply(pool_, x, heads_.cells[layer], [&](int64_t row, int64_t column, const float* gates) {
        const int64_t unit = column / 4;
        cell(gates, layer_state(state_->hidden, row, layer) + unit, layer_state(state_->cell, row, layer) + unit);
      });
    }
    const Inputs x = inputs_.prepare(pool_, emitting_.size(), heads_.predicted, [&](int64_t row, float* out) {
      const float* hidden = state_->hidden + (emitting_[row]->slot * heads_.layers + heads_.layers - 1) * width;
      std::copy(hidden, hidden + width, out);
    });
    write_rows(x, heads_.predicted,
               [&](int64_t row) { return state_->predicted + emitting_[row]->slot * joint_width(); });
    for (const Row* row : emitting_) state_->last_token[row->slot] = -1;
  }

  static void cell(const float* gates, float* hidden, float* memory) {
    const Floats two = _mm512_set1_ps(2.0f), one = _mm512_set1_ps(1.0f);
    const auto tanh = [&](Floats x) { return _mm512_fmsub_ps(two, sigmoid(_mm512_mul_ps(two, x)), one); };
    const Floats in = sigmoid(load(gates)), forget = sigmoid(load(gates + kLanes));
    const Floats fresh = tanh(load(gates + 2 * kLanes)), out = sigmoid(load(gates + 3 * kLanes));
    const Floats state = _mm512_fmadd_ps(in, fresh, _mm512_mul_ps(forget, load(memory)));
    _mm512_storeu_ps(memory, state);
    _mm512_storeu_ps(hidden, _mm512_mul_ps(out, tanh(state)));
  }

  // Scores the next steps of each busy row by the joint.
  void score_steps() {
    const auto [min_steps, max_steps] = heads_.duration_count ? kTdtWindow : kRnntWindow;
    const int64_t window = std::clamp<int64_t>(kMaxLookups / int64_t(busy_.size()), min_steps, max_steps);
    lookups_.clear();
    for (Row* row : busy_) {
      row->first = lookups_.size(), row->scored = std::min(window, row->count - row->time);
      for (int64_t i = 0; i < row->scored; i++) lookups_.push_back({row, row->time + i});
    }
    const int64_t width = joint_width();
    const Inputs x = inputs_.prepare(pool_, lookups_.size(), heads_.joint, [&](int64_t place, float* out) {
      const auto [row, step] = lookups_[place];
      const float *encoded = row->steps + step * width, *predicted = state_->predicted + row->slot * width;
      for (int64_t i = 0; i < width; i += kLanes) {
        const Floats sum = _mm512_add_ps(load(encoded + i), load(predicted + i));
        _mm512_storeu_ps(out + i, _mm512_max_ps(sum, _mm512_setzero_ps()));
      }
    });
    scores_.compute(pool_, x, heads_.joint);
  }

  // Skips blanks and appends the next token, if there is one in the window.
  void skip_blanks() {
    pool_.parallel_for(busy_.size(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) skip_blanks(*busy_[i]);
    });
    const auto done = [](const Row* row) { return row->time >= row->count; };
    busy_.erase(std::remove_if(busy_.begin(), busy_.end(), done), busy_.end());
  }

  void skip_blanks(Row& row) {
    int64_t offset = 0, token = heads_.tokens - 1, jump = 0;
    while (offset < row.scored) {
      const int64_t input = row.first + offset;
      token = scores_.best(input, 0, heads_.durations_column);
      jump = heads_.duration_count ? heads_.durations[best_duration(input)] : 0;
      if (token != heads_.tokens - 1) break;
      offset += std::max<int64_t>(jump, 1);
    }
    row.time += offset;
    if (offset) row.repeats = 0;
    if (offset >= row.scored) return;
    append_token(row, row.first + offset, token, heads_.duration_count ? jump : 1);
    if (jump == 0 && ++row.repeats >= heads_.max_symbols) jump = 1;
    if (jump) row.repeats = 0;
    row.time += jump;
  }

  int64_t best_duration(int64_t input) const {
    return scores_.best(input, heads_.durations_column, heads_.joint.columns) - heads_.durations_column;
  }

  void append_token(const Row& row, int64_t input, int64_t token, int64_t duration) {
    const TokenColumns& out = *tokens_;
    const int64_t at = row.index * out.capacity + out.counts[row.index]++;
    const TokenScore score = scores_.token_score(input, token, heads_.tokens, heads_.alpha);
    out.ids[at] = token, out.steps[at] = state_->decoded[row.slot] + row.time, out.durations[at] = duration;
    out.log_probabilities[at] = score.log_probability, out.confidences[at] = score.confidence;
    state_->last_token[row.slot] = token;
  }
};

// The best CTC label of each encoder step [count, width], its log-probability and confidence.
inline void label(ThreadPool& pool, const Layer& head, int64_t tokens, float alpha, const float* encoded, int64_t count,
                  int64_t width, int64_t* ids, float* log_probabilities, float* confidences) {
  InputRows inputs;
  Scores scores;
  for (int64_t begin = 0; begin < count; begin += kLabelSteps) {
    const int64_t size = std::min(kLabelSteps, count - begin);
    const Inputs x = inputs.prepare(pool, size, head, [&](int64_t row, float* out) {
      const float* step = encoded + (begin + row) * width;
      std::copy(step, step + width, out);
      std::fill(out + width, out + head.depth, 0.0f);
    });
    scores.compute(pool, x, head);
    pool.parallel_for(size, 1, [&](int64_t first, int64_t end) {
      for (int64_t row = first; row < end; row++) {
        const int64_t at = begin + row, best = scores.best(row, 0, head.columns);
        const TokenScore score = scores.token_score(row, best, tokens, alpha);
        ids[at] = best, log_probabilities[at] = score.log_probability, confidences[at] = score.confidence;
      }
    });
  }
}

}  // namespace conure::greedy
