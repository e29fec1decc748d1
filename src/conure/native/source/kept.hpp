// Memory that is kept from one call to the next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace conure {

constexpr std::size_t kKeptLine = 64;

// Numbers from the beginning of a line of the cache on; room for them only grows, with zeros.
template <typename Number>
class Kept {
 public:
  Number* of(int64_t count) {
    const std::size_t lines = (count * sizeof(Number) + kKeptLine - 1) / kKeptLine;
    if (lines_.size() < lines) lines_.resize(lines);
    return reinterpret_cast<Number*>(lines_.data());
  }

 private:
  struct alignas(kKeptLine) Line {
    char bytes[kKeptLine];
  };
  std::vector<Line> lines_;
};

}  // namespace conure
