// How long work on bytes from elsewhere can be cancelled.
#pragma once

namespace prm {

class Interrupts {
 public:
  virtual ~Interrupts() = default;

  // Called by every loop whose length the bytes decide, at least once per element. Throws to end the work.
  virtual void CheckInterrupts() {}
};

}  // namespace prm
