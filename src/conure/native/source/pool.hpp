// Threads that share the tasks of one loop after another.
//
// A turn is some three hundred short loops, so that a thread which has nothing to do looks for the next loop for a
// while before it sleeps. Tasks are taken one by one: a processor that is lent to somebody else holds up one task.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace conure {

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this] { work(); });
  }

  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int64_t threads() const { return workers_.size() + 1; }

  // Calls body(begin, end) for pieces of `grain` that cover 0..count, in any order, and returns when all are done.
  template <typename Body>
  void each(int64_t count, int64_t grain, const Body& body) {
    while ((count + grain - 1) / grain > kMostTasks) grain *= 2;
    const int64_t tasks = (count + grain - 1) / grain;
    auto task = [&](int64_t i) { body(i * grain, std::min(count, (i + 1) * grain)); };
    if (workers_.empty() || tasks <= 1) {
      for (int64_t i = 0; i < tasks; i++) task(i);
      return;
    }
    body_ = &task;
    call_ = [](const void* body, int64_t i) { (*static_cast<const decltype(task)*>(body))(i); };
    done_.store(0, std::memory_order_relaxed);
    const uint64_t loop = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store(loop << 32 | uint64_t(tasks) << 16);
    if (sleeping_.load()) {
      std::lock_guard lock(mutex_);
      wake_.notify_all();
    }
    take(loop);
    while (done_.load(std::memory_order_acquire) != tasks) __builtin_ia32_pause();
  }

 private:
  static constexpr int64_t kMostTasks = 0xffff;
  static constexpr int kPatience = 4000;  // looks, some 50 us

  // One number says which loop it is (32 bits), how many tasks it has (16) and which is next (16): a thread that
  // comes late cannot take a task of a loop that it does not know.
  std::atomic<uint64_t> ticket_{0};
  std::atomic<int64_t> done_{0};
  std::atomic<int> sleeping_{0};
  const void* body_ = nullptr;
  void (*call_)(const void*, int64_t) = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool closed_ = false;
  std::vector<std::thread> workers_;

  void take(uint64_t loop) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (ticket >> 32 == (loop & 0xffffffff) && (ticket & 0xffff) < (ticket >> 16 & 0xffff)) {
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
      call_(body_, ticket & 0xffff);
      done_.fetch_add(1, std::memory_order_release);
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  void work() {
    uint64_t seen = 0;
    while (true) {
      uint64_t loop = ticket_.load(std::memory_order_acquire) >> 32;
      for (int i = 0; loop == seen && i < kPatience; i++) {
        __builtin_ia32_pause();
        loop = ticket_.load(std::memory_order_acquire) >> 32;
      }
      if (loop == seen) {
        std::unique_lock lock(mutex_);
        sleeping_++;
        wake_.wait(lock, [&] { return closed_ || ticket_.load() >> 32 != seen; });
        sleeping_--;
        if (closed_) return;
        continue;
      }
      take(loop);
      seen = loop;
    }
  }
};

}  // namespace conure
