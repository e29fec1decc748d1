// Buffers that are reused from call to call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace conure {

constexpr std::size_t kCacheLine = 64;

// Numbers aligned to a cache line. The buffer only grows; new memory is zeros.
template <typename Number>
class ReusedBuffer {
 public:
  Number* reserve(int64_t count) {
    const std::size_t lines = (count * sizeof(Number) + kCacheLine - 1) / kCacheLine;
    if (lines_.size() < lines) lines_.resize(lines);
    return reinterpret_cast<Number*>(lines_.data());
  }

 private:
  struct alignas(kCacheLine) Line {
    char bytes[kCacheLine];
  };
  std::vector<Line> lines_;
};

}  // namespace conure
