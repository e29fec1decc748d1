// A thread pool that runs parallel loops, one after another.
//
// An engine step is about three hundred short loops, so an idle thread spins for a while before it sleeps. Threads take
// tasks one by one: a core that is preempted by another process delays one task only.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace conure {

class ThreadPool {
 public:
  explicit ThreadPool(int threads) {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this] { run_worker(); });
  }

  ~ThreadPool() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int64_t threads() const { return workers_.size() + 1; }

  // Calls body(begin, end) for ranges of `grain` that cover 0..count, in any order, and returns when all are done.
  template <typename Body>
  void parallel_for(int64_t count, int64_t grain, const Body& body) {
    while ((count + grain - 1) / grain > kMaxTasks) grain *= 2;
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
    run_tasks(loop);
    while (done_.load(std::memory_order_acquire) != tasks) __builtin_ia32_pause();
  }

 private:
  static constexpr int64_t kMaxTasks = 0xffff;
  static constexpr int kSpins = 4000;  // about 50 us

  // Loop number (32 bits), number of its tasks (16) and the next task (16) in one atomic: a late thread cannot take a
  // task of a later loop.
  std::atomic<uint64_t> ticket_{0};
  std::atomic<int64_t> done_{0};
  std::atomic<int> sleeping_{0};
  const void* body_ = nullptr;
  void (*call_)(const void*, int64_t) = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool closed_ = false;
  std::vector<std::thread> workers_;

  void run_tasks(uint64_t loop) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (ticket >> 32 == (loop & 0xffffffff) && (ticket & 0xffff) < (ticket >> 16 & 0xffff)) {
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
      call_(body_, ticket & 0xffff);
      done_.fetch_add(1, std::memory_order_release);
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  void run_worker() {
    uint64_t last_loop = 0;
    while (true) {
      uint64_t loop = ticket_.load(std::memory_order_acquire) >> 32;
      for (int i = 0; loop == last_loop && i < kSpins; i++) {
        __builtin_ia32_pause();
        loop = ticket_.load(std::memory_order_acquire) >> 32;
      }
      if (loop == last_loop) {
        std::unique_lock lock(mutex_);
        sleeping_++;
        wake_.wait(lock, [&] { return closed_ || ticket_.load() >> 32 != last_loop; });
        sleeping_--;
        if (closed_) return;
        continue;
      }
      run_tasks(loop);
      last_loop = loop;
    }
  }
};

}  // namespace conure
