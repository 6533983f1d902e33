// Lets long work on foreign bytes be cancelled.
#pragma once

namespace prm {

class Interrupts {
 public:
  virtual ~Interrupts() = default;

  // Every loop whose length depends on the bytes calls this at least once per element. Throws to end the
  // work.
  virtual void CheckInterrupts() {}
};

}  // namespace prm
