#include "pg/meanwhile.h"

#include <chrono>

namespace prm::pg {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::microseconds kInterval{100};

Meanwhile::Work current = nullptr;
void *argument_of_current = nullptr;
Clock::time_point last;

}  // namespace

uint32 proceed_calls = 0;

Meanwhile::Meanwhile(Work work, void *argument)
    : work_before_(current), argument_before_(argument_of_current) {
  current = work;
  argument_of_current = argument;
}

Meanwhile::~Meanwhile() {
  current = work_before_;
  argument_of_current = argument_before_;
}

void ProceedIfDue() noexcept {
  if (current == nullptr) return;
  Clock::time_point const now = Clock::now();
  if (now - last < kInterval) return;
  last = now;
  current(argument_of_current);
}

}  // namespace prm::pg
