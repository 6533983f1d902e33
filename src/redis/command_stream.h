// Parses the commands of a replication stream as its bytes arrive.
// Protocol: redis.io/docs/reference/protocol-spec; masters send arrays of bulk strings only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/interrupts.h"
#include "core/status.h"

namespace prm::redis {

struct StreamCommand {
  // The name first, in any case. Valid until the next call of Next. What exceeded the limits was not
  // kept: single arguments have no data() (empty ones have), and `arguments` may be shorter than count.
  std::vector<Bytes> arguments;
  size_t count = 0;    // of the arguments that were sent
  uint64_t begin = 0;  // bytes of the stream before it
  uint64_t end = 0;    // and up to its end
};

struct StreamLimits {
  uint64_t max_argument_bytes = uint64_t{512} << 20;  // longer arguments are skipped
  uint64_t max_command_bytes = uint64_t{1} << 30;     // what goes beyond is skipped, but for the count
};

class CommandStream {
 public:
  // offset: the bytes of the stream before the first that is fed. interrupts must outlive the object.
  CommandStream(uint64_t offset, const StreamLimits& limits, Interrupts& interrupts);

  // Takes the next bytes of the stream.
  void Feed(Bytes bytes);

  // The next command; false: it is not whole yet. Empty lines between commands count in the offset and are
  // passed over. Memory: the bytes of one Feed, and of one command as far as it is kept. After an error the
  // object is unusable. Errors: kProtocol with the offset (not an array of bulk strings).
  Result<bool> Next(StreamCommand& command);

  // Frees the bytes of the last command if they are many: its arguments are not used any more.
  void Release();

 private:
  enum class State { kCount, kLength, kArgument, kEnd };

  // An argument in kept_.
  struct Place {
    size_t at;
    size_t size;
    bool is_kept;
  };

  Result<bool> TakePart();
  Result<bool> TakeCount();
  Result<bool> TakeLength();
  Result<bool> TakeEnd();
  Result<bool> TakeLine(Bytes& line);
  Bytes Take(uint64_t most);
  Error Malformed(const char* lacking) const;

  StreamLimits limits_;
  Interrupts& interrupts_;
  std::string input_;  // of which at_ bytes are parsed
  size_t at_ = 0;
  uint64_t offset_;  // bytes of the stream that are parsed
  State state_ = State::kCount;

  // The command that is being parsed.
  uint64_t begin_ = 0;
  size_t count_ = 0;  // of its arguments; 0: none has begun
  size_t seen_ = 0;
  uint64_t left_ = 0;  // bytes of the argument
  bool is_kept_ = false;
  std::string kept_;           // arguments
  std::vector<Place> places_;  // of them
  uint64_t charged_ = 0;       // of max_command_bytes
};

}  // namespace prm::redis
