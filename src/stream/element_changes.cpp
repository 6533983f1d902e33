#include "stream/element_changes.h"

#include <charconv>
#include <limits>

#include "rdb/encoder.h"
#include "rdb/endian.h"
#include "rdb/score.h"
#include "redis/command_table.h"

namespace prm::stream {

namespace {

using rdb::ValueType;
using redis::IsSameWord;
using redis::StreamCommand;

// What a command may add beside its bytes.
constexpr size_t kBytesPerElement = 64;

template <typename Number>
bool ParseWhole(Bytes digits, Number& number) {
  const char* const end = digits.data() + digits.size();
  const auto [at, failed] = std::from_chars(digits.data(), end, number);
  return failed == std::errc() && at == end;
}

// An id that a server has made: "ms-seq". In XDEL a client may leave out the number behind the time.
bool ParseId(Bytes text, bool is_whole, rdb::StreamId& id) {
  const size_t dash = text.find('-');
  if (dash == Bytes::npos) return !is_whole && ParseWhole(text, id.ms);
  return ParseWhole(text.substr(0, dash), id.ms) && ParseWhole(text.substr(dash + 1), id.seq);
}

std::string NameOf(const rdb::StreamId& id) {
  std::string name;
  rdb::AppendBigEndian(name, id.ms, sizeof id.ms);
  rdb::AppendBigEndian(name, id.seq, sizeof id.seq);
  return name;
}

rdb::StreamId IdOf(const std::string& name) {
  return {rdb::LoadBigEndian<uint64_t>(name.data()),
          rdb::LoadBigEndian<uint64_t>(name.data() + sizeof(uint64_t))};
}

// Reads the arguments of one command. All of them are there.
class Parser {
 public:
  explicit Parser(const StreamCommand& command) : arguments_(command.arguments) {}

  std::optional<ElementChanges> Parse() {
    struct Known {
      const char* name;
      bool (Parser::*parse)();
    };
    static constexpr Known kKnown[] = {
        {"HSET", &Parser::ParseHset},       {"HMSET", &Parser::ParseHset},
        {"HDEL", &Parser::ParseHdel},       {"HSETEX", &Parser::ParseHsetex},
        {"HGETDEL", &Parser::ParseHgetdel}, {"SADD", &Parser::ParseSadd},
        {"SREM", &Parser::ParseSrem},       {"ZADD", &Parser::ParseZadd},
        {"ZREM", &Parser::ParseZrem},       {"XADD", &Parser::ParseXadd},
        {"XDEL", &Parser::ParseXdel},       {"PEXPIREAT", &Parser::ParseExpiry},
        {"EXPIREAT", &Parser::ParseExpiry}, {"EXPIRE", &Parser::ParseExpiry},
        {"PEXPIRE", &Parser::ParseExpiry},  {"PERSIST", &Parser::ParseExpiry},
    };
    for (const Known& known : kKnown) {
      if (!IsSameWord(arguments_[0], known.name)) continue;
      if (!(this->*known.parse)()) return std::nullopt;
      for (const auto& [name, state] : changes_.elements) changes_.size += name.size() + kBytesPerElement;
      for (const Bytes argument : arguments_) changes_.size += argument.size();
      return std::move(changes_);
    }
    return std::nullopt;
  }

 private:
  bool ParseHset() {
    changes_.type = ValueType::kHash;
    return PutFields(2, arguments_.size(), std::nullopt);
  }

  bool PutFields(size_t from, size_t to, std::optional<int64_t> expires_at_ms) {
    if (to <= from || (to - from) % 2 != 0) return false;
    for (size_t at = from; at < to; at += 2) {
      ElementState state;
      state.value = arguments_[at + 1];
      state.expires_at_ms = expires_at_ms;
      Put(arguments_[at], std::move(state));
    }
    return true;
  }

  bool ParseHdel() {
    changes_.type = ValueType::kHash;
    return TakeAway(2);
  }

  bool TakeAway(size_t from) {
    for (size_t at = from; at < arguments_.size(); ++at) Put(arguments_[at], std::nullopt);
    return from < arguments_.size();
  }

  // HSETEX key [FNX | FXX | NX | XX] [PXAT ms | EXAT seconds | KEEPTTL] FIELDS n field value ...
  bool ParseHsetex() {
    std::optional<int64_t> expires_at_ms;
    size_t at = 2;
    for (; at < arguments_.size() && !IsSameWord(arguments_[at], "FIELDS"); ++at) {
      const Bytes option = arguments_[at];
      const bool in_seconds = IsSameWord(option, "EXAT");
      if (in_seconds || IsSameWord(option, "PXAT")) {
        int64_t time = 0;
        const int64_t most = std::numeric_limits<int64_t>::max() / (in_seconds ? 1000 : 1);
        if (++at == arguments_.size() || expires_at_ms || !ParseWhole(arguments_[at], time) || time <= 0 ||
            time > most)
          return false;
        expires_at_ms = in_seconds ? time * 1000 : time;
      } else if (!IsSameWord(option, "FNX") && !IsSameWord(option, "FXX") && !IsSameWord(option, "NX") &&
                 !IsSameWord(option, "XX")) {
        return false;  // KEEPTTL does not say what the expiry is, EX and PX count from a time not known here
      }
    }
    changes_.type = ValueType::kHash;
    return HasCount(at + 1, 2) && PutFields(at + 2, arguments_.size(), expires_at_ms);
  }

  // HGETDEL key FIELDS n field ...
  bool ParseHgetdel() {
    changes_.type = ValueType::kHash;
    return arguments_.size() > 3 && IsSameWord(arguments_[2], "FIELDS") && HasCount(3, 1) && TakeAway(4);
  }

  // Whether an argument is the number of those behind it, that come `each` at a time.
  bool HasCount(size_t at, size_t each) const {
    size_t count = 0;
    return at < arguments_.size() && ParseWhole(arguments_[at], count) && count <= arguments_.size() &&
           arguments_.size() - at - 1 == count * each;
  }

  bool ParseSadd() {
    changes_.type = ValueType::kSet;
    for (size_t at = 2; at < arguments_.size(); ++at) Put(arguments_[at], ElementState());
    return arguments_.size() > 2;
  }

  bool ParseSrem() {
    changes_.type = ValueType::kSet;
    return TakeAway(2);
  }

  // ZADD key [CH] score member ...
  bool ParseZadd() {
    changes_.type = ValueType::kZset;
    size_t at = 2;
    if (at < arguments_.size() && IsSameWord(arguments_[at], "CH")) ++at;
    if (arguments_.size() <= at || (arguments_.size() - at) % 2 != 0) return false;
    for (; at < arguments_.size(); at += 2) {
      ElementState state;
      if (!rdb::ParseScore(arguments_[at], state.score))
        return false;  // an option, or a spelling not known here
      Put(arguments_[at + 1], std::move(state));
    }
    return true;
  }

  bool ParseZrem() {
    changes_.type = ValueType::kZset;
    return TakeAway(2);
  }

  // XADD key [NOMKSTREAM] id field value ... What is trimmed as well does not stand in the command.
  bool ParseXadd() {
    size_t at = 2;
    if (at < arguments_.size() && IsSameWord(arguments_[at], "NOMKSTREAM")) ++at;
    rdb::StreamId id;
    if (arguments_.size() < at + 3 || (arguments_.size() - at) % 2 == 0 || !ParseId(arguments_[at], true, id))
      return false;
    changes_.type = ValueType::kStream;
    ElementState state;
    for (++at; at < arguments_.size(); ++at) state.fields.emplace_back(arguments_[at]);
    Put(NameOf(id), std::move(state));
    return true;
  }

  bool ParseXdel() {
    changes_.type = ValueType::kStream;
    for (size_t at = 2; at < arguments_.size(); ++at) {
      rdb::StreamId id;
      if (!ParseId(arguments_[at], false, id)) return false;
      Put(NameOf(id), std::nullopt);
    }
    return arguments_.size() > 2;
  }

  // A time that has passed comes as DEL.
  bool ParseExpiry() { return arguments_.size() > 1; }

  void Put(Bytes name, std::optional<ElementState> state) {
    changes_.elements.insert_or_assign(std::string(name), std::move(state));
  }

  const std::vector<Bytes>& arguments_;
  ElementChanges changes_;
};

std::string Encode(const ElementChanges& changes, bool of_gone) {
  if (changes.type == ValueType::kStream) {
    rdb::StreamEncoder encoder;
    rdb::StreamInfo info;
    for (const auto& [name, state] : changes.elements) {
      if (state.has_value() == of_gone) continue;
      rdb::StreamFields fields;
      if (of_gone) fields.emplace_back("", "");
      for (size_t i = 0; !of_gone && i + 1 < state->fields.size(); i += 2)
        fields.emplace_back(state->fields[i], state->fields[i + 1]);
      info.last_id = IdOf(name);
      if (encoder.count() == 0) info.first_id = info.last_id;
      encoder.AddEntry(info.last_id, fields);
    }
    info.length = encoder.count();
    return encoder.Finish(info, {}, false);
  }
  rdb::CollectionEncoder encoder(changes.type.value());
  for (const auto& [name, state] : changes.elements) {
    if (state.has_value() == of_gone) continue;
    const ElementState nothing;
    const ElementState& shown = of_gone ? nothing : *state;
    if (changes.type == ValueType::kSet)
      encoder.AddSetMember(name);
    else if (changes.type == ValueType::kZset)
      encoder.AddZsetMember(name, shown.score);
    else if (shown.expires_at_ms)
      encoder.AddExpiringHashField(name, shown.value, *shown.expires_at_ms);
    else
      encoder.AddHashField(name, shown.value);
  }
  return encoder.Finish();
}

}  // namespace

bool ElementChanges::HasGone() const {
  for (const auto& [name, state] : elements)
    if (!state) return true;
  return false;
}

bool ElementChanges::HasStates() const {
  for (const auto& [name, state] : elements)
    if (state) return true;
  return false;
}

std::optional<ElementChanges> ElementChangesOf(const StreamCommand& command) {
  if (command.arguments.size() != command.count || command.count < 2) return std::nullopt;
  for (const Bytes argument : command.arguments)
    if (argument.data() == nullptr) return std::nullopt;
  return Parser(command).Parse();
}

bool Merge(ElementChanges&& later, ElementChanges& changes) {
  if (!later.type) return true;
  if (changes.type && changes.type != later.type) return false;
  changes.type = later.type;
  changes.size += later.size;
  for (auto& [name, state] : later.elements) changes.elements.insert_or_assign(name, std::move(state));
  return true;
}

std::string EncodeStates(const ElementChanges& changes) { return Encode(changes, false); }

std::string EncodeGone(const ElementChanges& changes) { return Encode(changes, true); }

}  // namespace prm::stream
