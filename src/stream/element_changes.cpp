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

// Memory that a command may add for each element, beside its bytes.
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
        {"HSET", &Parser::ParseHset},          {"HMSET", &Parser::ParseHset},
        {"HDEL", &Parser::ParseHdel},          {"HSETEX", &Parser::ParseHsetex},
        {"HGETDEL", &Parser::ParseHgetdel},    {"SADD", &Parser::ParseSadd},
        {"SREM", &Parser::ParseSrem},          {"ZADD", &Parser::ParseZadd},
        {"ZREM", &Parser::ParseZrem},          {"XADD", &Parser::ParseXadd},
        {"XDEL", &Parser::ParseXdel},          {"XTRIM", &Parser::ParseXtrim},
        {"RPUSH", &Parser::ParseRpush},        {"RPUSHX", &Parser::ParseRpush},
        {"RPOP", &Parser::ParseRpop},          {"PEXPIREAT", &Parser::ParseNothing},
        {"EXPIREAT", &Parser::ParseNothing},   {"EXPIRE", &Parser::ParseNothing},
        {"PEXPIRE", &Parser::ParseNothing},    {"PERSIST", &Parser::ParseNothing},
        {"XACK", &Parser::ParseNothing},       {"XCLAIM", &Parser::ParseNothing},
        {"XAUTOCLAIM", &Parser::ParseNothing}, {"XGROUP", &Parser::ParseXgroup},
        {"XDELEX", &Parser::ParseXdelex},      {"XNACK", &Parser::ParseNothing},
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

  // XADD key [NOMKSTREAM] [KEEPREF | DELREF] [trim] id field value ...
  bool ParseXadd() {
    size_t at = 2;
    for (;; ++at) {
      if (ParseTrim(at)) continue;
      if (at == arguments_.size() ||
          !(IsSameWord(arguments_[at], "NOMKSTREAM") || IsReference(arguments_[at])))
        break;
    }
    rdb::StreamId id;
    if (arguments_.size() < at + 3 || (arguments_.size() - at) % 2 == 0 || !ParseId(arguments_[at], true, id))
      return false;
    changes_.type = ValueType::kStream;
    ElementState state;
    for (++at; at < arguments_.size(); ++at) state.fields.emplace_back(arguments_[at]);
    Put(NameOfElement(id), std::move(state));
    return true;
  }

  // XTRIM key trim [KEEPREF | DELREF]
  bool ParseXtrim() {
    size_t at = 2;
    if (!ParseTrim(at)) return false;
    changes_.type = ValueType::kStream;
    for (++at; at < arguments_.size(); ++at)
      if (!IsReference(arguments_[at])) return false;
    return true;
  }

  // Words that decide about references by groups. The word that depends on them (ACKED) is not known here.
  static bool IsReference(Bytes word) { return IsSameWord(word, "KEEPREF") || IsSameWord(word, "DELREF"); }

  // MAXLEN [=] count | MINID [=] id. Servers say how much was trimmed by "~". True: `at` is its last
  // argument.
  bool ParseTrim(size_t& at) {
    if (at == arguments_.size()) return false;
    const bool is_length = IsSameWord(arguments_[at], "MAXLEN");
    if (!is_length && !IsSameWord(arguments_[at], "MINID")) return false;
    size_t bound = at + 1;
    if (bound < arguments_.size() && arguments_[bound] == "=") ++bound;
    if (bound >= arguments_.size()) return false;
    uint64_t newest = 0;
    rdb::StreamId from;
    if (!(is_length ? ParseWhole(arguments_[bound], newest) : ParseId(arguments_[bound], false, from)))
      return false;
    if (is_length)
      changes_.ends.newest = newest;
    else
      changes_.ends.from = from;
    at = bound;
    return true;
  }

  bool ParseXdel() { return TakeEntriesAway(2); }

  // XDELEX key [KEEPREF | DELREF] IDS n id ...
  bool ParseXdelex() {
    size_t at = 2;
    if (at < arguments_.size() && IsReference(arguments_[at])) ++at;
    return at < arguments_.size() && IsSameWord(arguments_[at], "IDS") && HasCount(at + 1, 1) &&
           TakeEntriesAway(at + 2);
  }

  bool TakeEntriesAway(size_t from) {
    changes_.type = ValueType::kStream;
    for (size_t at = from; at < arguments_.size(); ++at) {
      rdb::StreamId id;
      if (!ParseId(arguments_[at], false, id)) return false;
      Put(NameOfElement(id), std::nullopt);
    }
    return arguments_.size() > from;
  }

  bool ParseRpush() {
    changes_.type = ValueType::kList;
    for (size_t at = 2; at < arguments_.size(); ++at) changes_.ends.pushed.emplace_back(arguments_[at]);
    return arguments_.size() > 2;
  }

  // RPOP key [count]
  bool ParseRpop() {
    changes_.type = ValueType::kList;
    changes_.ends.popped = 1;
    return arguments_.size() == 2 ||
           (arguments_.size() == 3 && ParseWhole(arguments_[2], changes_.ends.popped));
  }

  // When the key expires; a time that has passed comes as DEL. And what only groups of a stream know.
  bool ParseNothing() { return arguments_.size() > 1; }

  // CREATE may make the stream.
  bool ParseXgroup() { return arguments_.size() > 3 && !IsSameWord(arguments_[1], "CREATE"); }

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
      info.last_id = IdOfElement(name);
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
    else if (changes.type == ValueType::kList)
      encoder.AddListElement(shown.value);
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

std::string NameOfElement(const rdb::StreamId& id) {
  std::string name;
  rdb::AppendBigEndian(name, id.ms, sizeof id.ms);
  rdb::AppendBigEndian(name, id.seq, sizeof id.seq);
  return name;
}

std::string NameOfElement(uint64_t position) {
  std::string name;
  rdb::AppendBigEndian(name, position, sizeof position);
  return name;
}

rdb::StreamId IdOfElement(const std::string& name) {
  return {rdb::LoadBigEndian<uint64_t>(name.data()),
          rdb::LoadBigEndian<uint64_t>(name.data() + sizeof(uint64_t))};
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

uint64_t FirstPosition(const ElementChanges& changes, bool of_gone) {
  if (changes.type == ValueType::kList)
    for (const auto& [name, state] : changes.elements)
      if (state.has_value() != of_gone) return rdb::LoadBigEndian<uint64_t>(name.data());
  return 0;
}

}  // namespace prm::stream
