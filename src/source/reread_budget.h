// How much of a server's time keys may cost that are read again while its stream is followed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace prm::source {

// All times are in microseconds. `now_us`: a clock that never goes back.
class RereadBudget {
 public:
  // share: of the server's time, above 0 up to 1.
  explicit RereadBudget(double share) : share_(share) {}

  // The clock for all but tests.
  static int64_t NowUs();

  // How many keys one EXEC may read, so that it keeps the server busy for about a millisecond; at least 1.
  size_t KeysAtOnce() const;

  // Likewise if nothing asks for more at once, so that others hardly wait: about a tenth of that.
  size_t KeysInTurn() const;

  // Reading so many keys has kept the server busy for so long, by its own clock if that is known. 0 keys: a
  // question about keys that is not about their values.
  void Spend(size_t keys, int64_t busy_us, int64_t now_us);

  // How long to wait before more is read; 0: not at all.
  int64_t PauseUs(int64_t now_us) const;

  // Whether the server is to be asked again how quickly it answers, by a PING that nothing of ours delays.
  bool WantsPing(int64_t now_us) const;

  // It took so long. As long as the slowest in a hundred take twice as long as they used to, the share is
  // smaller, unless a smaller share does not help.
  void NotePing(int64_t took_us, int64_t now_us);

  // The share that may be taken now.
  double share() const { return share_ / slowdown_; }

 private:
  size_t KeysIn(double busy_us) const;
  double CreditUs(double idle_us) const;
  double PassedUs(int64_t now_us) const;
  void JudgePings();

  double share_;
  double slowdown_ = 1;
  double us_per_key_ = 0;  // 0: not known yet
  double credit_us_ = 0;   // of the server's time, at as_of_us_; negative: more was taken than there was
  int64_t as_of_us_ = 0;
  bool has_begun_ = false;
  std::vector<int64_t> pings_us_;  // of the window that is under way
  int64_t asked_us_ = 0;           // when the last was noted
  double usual_ping_us_ = 0;       // 0: not known yet
  int excused_windows_ = 0;
};

}  // namespace prm::source
