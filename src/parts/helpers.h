// The processes beside the one that leads a run or a verification: each reads parts of the source.
#pragma once

#include "mapping/routing.h"

namespace prm {

// What several processes do side by side.
struct Work {
  enum class Kind { kRun, kVerification };
  Kind kind;
  int64 id;

  std::string ToString() const;  // "run 7"
};

class Helpers {
 public:
  virtual ~Helpers() = default;
  // Starts up to `count` processes that take part in the work, and returns how many. Says why there are
  // fewer, as a WARNING if so many were asked for. mappings: those that are read. Commits.
  int StartUpTo(int count, bool is_asked_for, const std::vector<const Mapping *> &mappings);
  // Stops those that still run, and waits until they have ended.
  virtual void Stop() = 0;

 protected:
  explicit Helpers(const Work &work) : work_(work) {}
  // Why no process can help the current user; nothing if one can.
  virtual std::optional<std::string> Problem() = 0;
  // Starts up to `count` processes and returns how many. Reports why there are fewer, at this level.
  virtual int Start(int count, int report_level) = 0;

  const Work work_;

 private:
  bool told_alone_ = false;
};

// Set by _PG_init.
extern std::unique_ptr<Helpers> (*new_helpers)(const Work &);

}  // namespace prm
