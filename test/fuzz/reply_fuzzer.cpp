// A byte of limits, then any bytes as replies, whole and in pieces whose size the input decides: the same
// comes of both, within the limits.
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz/touch.h"
#include "redis/reply_reader.h"

namespace {

using prm::redis::Reply;
using prm::redis::ReplyReader;
using prm::redis::ReplyView;

constexpr size_t kReplies = 8;

std::string Text(const ReplyView& reply) {
  if (reply.IsNil()) return "nil";
  if (reply.IsInteger()) return std::to_string(*reply.Integer());
  std::string text(reply.String().value_or(reply.StatusText().value_or(reply.ErrorText())));
  for (size_t i = 0; i < reply.size(); ++i) text += " " + Text(reply.element(i));
  return text;
}

struct Outcome {
  std::string replies;
  bool is_valid = true;
  bool is_idle = false;
};

Outcome Take(prm::Bytes bytes, uint64_t limit, bool drops_strings, size_t piece) {
  const prm::TextGate gate;
  ReplyReader reader(gate);
  for (size_t i = 0; i < kReplies; ++i) reader.Expect({limit, drops_strings});
  Outcome outcome;
  for (size_t at = 0; at < bytes.size() && outcome.is_valid; at += piece) {
    const prm::Bytes part = bytes.substr(at, piece);
    outcome.is_valid = reader.Take(part.data(), part.size()).ok();
    while (const auto reply = reader.Next()) {
      outcome.replies += Text(*reply) + "\n" + std::to_string(reply->dropped()) + "\n";
    }
  }
  outcome.is_idle = reader.IsIdle();
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const uint64_t limit = uint64_t{1} << (data[0] & 15);
  const bool drops_strings = (data[0] & 16) != 0;
  const prm::Bytes bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Outcome whole = Take(bytes, limit, drops_strings, size);
  const Outcome cut = Take(bytes, limit, drops_strings, 1 + (data[0] >> 5));
  prm::fuzz::Touch(whole.replies);
  // Of invalid bytes the valid beginning is read.
  if (whole.is_valid != cut.is_valid || whole.replies != cut.replies) __builtin_trap();
  if (whole.is_valid && whole.is_idle != cut.is_idle) __builtin_trap();
  return 0;
}
