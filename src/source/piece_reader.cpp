#include "source/piece_reader.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/recent_names.h"
#include "rdb/encoder.h"
#include "source/key_reply.h"
#include "source/scan_position.h"

namespace prm::source {

namespace {

using redis::Connection;
using redis::ReplyView;

// The number of elements to ask for while their size is unknown.
constexpr uint64_t kFirstElements = 64;
// More at once would block Redis for too long.
constexpr uint64_t kMostElements = 65536;
constexpr uint64_t kFastestGrowth = 16;
// "$10\r\n…\r\n"
constexpr uint64_t kReplyOverhead = 16;

bool AreStrings(const ReplyView& array) {
  if (!array.IsArray()) return false;
  for (size_t i = 0; i < array.size(); ++i)
    if (!array.element(i).IsString()) return false;
  return true;
}

bool StartsWith(Bytes text, Bytes prefix) { return text.substr(0, prefix.size()) == prefix; }

// A string: STRLEN, then one GETRANGE after another.
class StringReader : public PieceReader {
 public:
  StringReader(Entry& entry, const PieceLimits& limits) : PieceReader(entry, limits) {}

  void AskPiece(Connection& connection) override {
    if (value_.empty()) connection.Append({"STRLEN", entry_.key});
    connection.Append({"GETRANGE", entry_.key, std::to_string(value_.size()),
                       std::to_string(value_.size() + limits_.piece_bytes - 1)},
                      PieceLimit());
  }

  Status TakePiece(Connection& connection) override {
    if (value_.empty()) {
      const Result<redis::Reply> length = Receive(connection);
      if (!length.ok()) return length.error();
      if (state() != State::kReading) return {};
      if (length.value().Integer().value_or(-1) < 0) return connection.UnknownReply("STRLEN");
      length_ = static_cast<uint64_t>(*length.value().Integer());
      if (length_ > limits_.max_value_bytes) {
        SetState(State::kTooLarge);
        return {};
      }
      value_.reserve(length_);
    }
    const Result<redis::Reply> piece = Receive(connection);
    if (!piece.ok()) return piece.error();
    if (state() != State::kReading) return {};
    if (!piece.value().IsString()) return connection.UnknownReply("GETRANGE");
    const Bytes bytes = *piece.value().String();
    if (bytes.size() != std::min<uint64_t>(limits_.piece_bytes, length_ - value_.size())) {
      SetState(State::kChanged);
      return {};
    }
    value_ += bytes;
    if (value_.size() == length_) SetState(State::kDone);
    return {};
  }

  Status Finish() override {
    entry_.plain = true;
    entry_.payload = std::move(value_);
    entry_.large.reset();
    return {};
  }

  size_t size() const override { return value_.size(); }

 private:
  uint64_t length_ = 0;
  std::string value_;
};

// The base for types with a count of elements: all but strings and streams.
class CollectionReader : public PieceReader {
 public:
  CollectionReader(rdb::ValueType type, const char* length_command, Entry& entry, uint64_t memory,
                   const PieceLimits& limits)
      : PieceReader(entry, limits),
        count_(limits.piece_bytes, memory),
        encoder_(type, limits.make_spool),
        length_command_(length_command) {}

  void AskPiece(Connection& connection) final {
    if (!has_length_) connection.Append({length_command_, entry_.key});
    AskElements(connection);
  }

  Status TakePiece(Connection& connection) final {
    if (!has_length_) {
      const Result<redis::Reply> length = Receive(connection);
      if (!length.ok()) return length.error();
      if (state() != State::kReading) return {};
      if (length.value().Integer().value_or(-1) < 0) return connection.UnknownReply(length_command_);
      length_ = static_cast<uint64_t>(*length.value().Integer());
      has_length_ = true;
    }
    const Result<redis::Reply> piece = Receive(connection);
    if (!piece.ok()) return piece.error();
    if (state() != State::kReading) return {};
    const uint64_t count_before = encoder_.count();
    const size_t size_before = encoder_.size();
    bool at_end = false;
    PRM_RETURN_IF_ERROR(TakeElements(connection, piece.value(), at_end));
    count_.Note(encoder_.count() - count_before, encoder_.size() - size_before);
    encoder_.ExpectCount(length_, limits_.max_value_bytes);
    PRM_RETURN_IF_ERROR(encoder_.Spill());
    if (encoder_.size() > limits_.max_value_bytes) {
      SetState(State::kTooLarge);
    } else if (at_end) {
      SetState(encoder_.count() == length_ ? State::kDone : State::kChanged);
    }
    return {};
  }

  Status Finish() final { return encoder_.Finish(false, entry_.payload, entry_.large); }
  size_t size() const final { return encoder_.size(); }

 protected:
  virtual void AskElements(Connection& connection) = 0;
  virtual Status TakeElements(Connection& connection, const ReplyView& reply, bool& at_end) = 0;

  PieceCount count_;
  rdb::CollectionEncoder encoder_;
  uint64_t length_ = 0;

 private:
  const char* length_command_;
  bool has_length_ = false;
};

// A list or sorted set, by position. ZREVRANGE rather than ZSCAN: nothing is returned twice, and the order is
// that of RDB, so no sorting is needed.
class RangeReader : public CollectionReader {
 public:
  RangeReader(rdb::ValueType type, Entry& entry, uint64_t memory, const PieceLimits& limits)
      : CollectionReader(type, type == rdb::ValueType::kList ? "LLEN" : "ZCARD", entry, memory, limits),
        is_list_(type == rdb::ValueType::kList) {}

  void AskElements(Connection& connection) override {
    asked_ = count_.elements();
    const std::string first = std::to_string(encoder_.count());
    const std::string last = std::to_string(encoder_.count() + asked_ - 1);
    if (is_list_) {
      connection.Append({"LRANGE", entry_.key, first, last}, PieceLimit());
    } else {
      connection.Append({"ZREVRANGE", entry_.key, first, last, "WITHSCORES"}, PieceLimit());
    }
  }

  Status TakeElements(Connection& connection, const ReplyView& reply, bool& at_end) override {
    const char* const command = is_list_ ? "LRANGE" : "ZREVRANGE";
    const size_t width = is_list_ ? 1 : 2;
    if (!AreStrings(reply) || reply.size() % width != 0) return connection.UnknownReply(command);
    at_end = reply.size() / width < asked_ || encoder_.count() + reply.size() / width >= length_;
    for (size_t i = 0; i < reply.size(); i += width) {
      const Bytes element = *reply.element(i).String();
      if (is_list_) {
        encoder_.AddListElement(element);
        continue;
      }
      // "%.17g" or shorter, which is exact.
      double score = 0;
      const Bytes text = *reply.element(i + 1).String();
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), score);
      if (error != std::errc() || end != text.data() + text.size()) return connection.UnknownReply(command);
      encoder_.AddZsetMember(element, score);
    }
    return {};
  }

 private:
  bool is_list_;
  uint64_t asked_ = 0;
};

// A hash or set, by cursor. SCAN repeats only elements that it returned shortly before, see ScanSource; the
// number of elements checks that.
class CursorReader : public CollectionReader {
 public:
  CursorReader(rdb::ValueType type, Entry& entry, uint64_t memory, const PieceLimits& limits)
      : CollectionReader(type, type == rdb::ValueType::kSet ? "SCARD" : "HLEN", entry, memory, limits),
        is_set_(type == rdb::ValueType::kSet),
        recent_(limits.key) {}

  void AskElements(Connection& connection) override {
    connection.Append({Command(), entry_.key, cursor_, "COUNT", std::to_string(count_.elements())},
                      PieceLimit());
  }

  Status TakeElements(Connection& connection, const ReplyView& reply, bool& at_end) override {
    const size_t width = is_set_ ? 1 : 2;
    if (reply.size() != 2 || !IsCursor(reply.element(0).String().value_or("")) ||
        !AreStrings(reply.element(1)) || reply.element(1).size() % width != 0) {
      return connection.UnknownReply(Command());
    }
    cursor_ = *reply.element(0).String();
    at_end = cursor_ == "0";
    const ReplyView elements = reply.element(1);
    for (size_t i = 0; i < elements.size(); i += width) {
      const Bytes name = *elements.element(i).String();
      if (!recent_.Insert(name)) continue;
      if (is_set_) {
        encoder_.AddSetMember(name);
      } else {
        encoder_.AddHashField(name, *elements.element(i + 1).String());
      }
    }
    return {};
  }

 private:
  const char* Command() const { return is_set_ ? "SSCAN" : "HSCAN"; }

  bool is_set_;
  std::string cursor_ = "0";
  RecentNames recent_;
};

// A hash whose fields may expire: by cursor, with the expiries of each page. HLEN counts expired fields that
// are not deleted yet.
class ExpiringHashReader : public PieceReader {
 public:
  ExpiringHashReader(Entry& entry, uint64_t memory, const PieceLimits& limits)
      : PieceReader(entry, limits),
        count_(limits.piece_bytes, memory),
        encoder_(rdb::ValueType::kHash, limits.make_spool),
        recent_(limits.key) {}

  void AskPiece(Connection& connection) override {
    if (!length_) connection.Append({"HLEN", entry_.key});
    if (page_.empty()) {
      connection.Append({"HSCAN", entry_.key, cursor_, "COUNT", std::to_string(count_.elements())},
                        PieceLimit());
      return;
    }
    if (limits_.server.has_time) connection.Append({"TIME"});
    const std::string number = std::to_string(page_.size());
    std::vector<Bytes> arguments = {"HPEXPIRETIME", entry_.key, "FIELDS", number};
    for (const auto& [field, value] : page_) arguments.push_back(field);
    connection.Append(arguments.data(), arguments.size(), PieceLimit());
  }

  Status TakePiece(Connection& connection) override {
    if (!length_) PRM_RETURN_IF_ERROR(TakeLength(connection));
    if (state() != State::kReading) return {};
    PRM_RETURN_IF_ERROR(page_.empty() ? TakePage(connection) : TakeExpiries(connection));
    if (state() != State::kReading || !page_.empty()) return {};
    if (encoder_.size() > limits_.max_value_bytes) {
      SetState(State::kTooLarge);
    } else if (cursor_ == "0") {
      SetState(encoder_.count() <= *length_ ? State::kDone : State::kChanged);
    }
    return {};
  }

  Status Finish() override {
    if (encoder_.count() > 0) return encoder_.Finish(limits_.server.valkey, entry_.payload, entry_.large);
    entry_.state = EntryState::kVanished;
    DropPayload(entry_);
    return {};
  }
  size_t size() const override { return encoder_.size(); }

 private:
  Status TakeLength(Connection& connection) {
    const Result<redis::Reply> length = Receive(connection);
    if (!length.ok()) return length.error();
    if (state() != State::kReading) return {};
    if (length.value().Integer().value_or(-1) < 0) return connection.UnknownReply("HLEN");
    length_ = static_cast<uint64_t>(*length.value().Integer());
    return {};
  }

  Status TakePage(Connection& connection) {
    const Result<redis::Reply> reply = Receive(connection);
    if (!reply.ok()) return reply.error();
    if (state() != State::kReading) return {};
    const Bytes cursor = reply.value().element(0).String().value_or("");
    if (reply.value().size() != 2 || !IsCursor(cursor) || !AreStrings(reply.value().element(1)) ||
        reply.value().element(1).size() % 2 != 0) {
      return connection.UnknownReply("HSCAN");
    }
    cursor_ = cursor;
    const ReplyView elements = reply.value().element(1);
    for (size_t i = 0; i < elements.size(); i += 2) {
      const Bytes field = *elements.element(i).String();
      if (recent_.Insert(field)) page_.emplace_back(field, *elements.element(i + 1).String());
    }
    return {};
  }

  Status TakeExpiries(Connection& connection) {
    int64_t now_ms = 0;
    if (limits_.server.has_time) {
      const Result<redis::Reply> time = Receive(connection);
      if (!time.ok()) return time.error();
      const Result<int64_t> now = ParseTime(connection, time.value());
      if (!now.ok()) return now.error();
      now_ms = now.value();
    }
    const Result<redis::Reply> reply = Receive(connection);
    if (!reply.ok()) return reply.error();
    if (state() != State::kReading) return {};
    const size_t size_before = encoder_.size();
    const auto page = std::exchange(page_, {});
    if (reply.value().IsNil() || (reply.value().IsArray() && reply.value().size() == 0)) {
      SetState(State::kChanged);  // the key is gone
      return {};
    }
    if (reply.value().size() != page.size()) return connection.UnknownReply("HPEXPIRETIME");
    for (size_t i = 0; i < page.size(); ++i) {
      const auto expiry = reply.value().element(i).Integer();
      if (!expiry) return connection.UnknownReply("HPEXPIRETIME");
      const auto& [field, value] = page[i];
      if (*expiry == kNoExpiry) {
        encoder_.AddHashField(field, value);
      } else if (*expiry > now_ms) {  // kNoKey: the field has expired since
        encoder_.AddExpiringHashField(field, value, *expiry);
      }
    }
    count_.Note(page.size(), encoder_.size() - size_before);
    encoder_.ExpectCount(*length_, limits_.max_value_bytes);
    return encoder_.Spill();
  }

  PieceCount count_;
  rdb::CollectionEncoder encoder_;
  std::optional<uint64_t> length_;
  std::string cursor_ = "0";
  std::vector<std::pair<std::string, std::string>> page_;  // fields whose expiries are still unknown
  RecentNames recent_;
};

}  // namespace

PieceCount::PieceCount(uint64_t piece_bytes, uint64_t memory)
    : piece_bytes_(piece_bytes),
      elements_(memory > 0 && memory <= piece_bytes ? kMostElements : kFirstElements) {}

void PieceCount::Note(uint64_t elements, uint64_t bytes) {
  if (elements == 0) return;
  const uint64_t wanted = piece_bytes_ / (bytes / elements + kReplyOverhead);
  elements_ = std::clamp<uint64_t>(wanted, 1, std::min(kMostElements, elements_ * kFastestGrowth));
}

std::unique_ptr<PieceReader> PieceReader::ForType(Bytes type, Entry& entry, uint64_t memory,
                                                  const PieceLimits& limits) {
  using rdb::ValueType;
  if (type == "string") return std::make_unique<StringReader>(entry, limits);
  if (type == "list") return std::make_unique<RangeReader>(ValueType::kList, entry, memory, limits);
  if (type == "zset") return std::make_unique<RangeReader>(ValueType::kZset, entry, memory, limits);
  if (type == "set") return std::make_unique<CursorReader>(ValueType::kSet, entry, memory, limits);
  if (type == "hash" && limits.server.has_field_expiries)
    return std::make_unique<ExpiringHashReader>(entry, memory, limits);
  if (type == "hash") return std::make_unique<CursorReader>(ValueType::kHash, entry, memory, limits);
  if (type == "stream") return MakeStreamReader(entry, memory, limits);
  return nullptr;
}

void PieceReader::Ask(Connection& connection) {
  const size_t before = connection.pending();
  AskPiece(connection);
  asked_ = connection.pending() - before;
}

Status PieceReader::Take(Connection& connection) {
  PRM_RETURN_IF_ERROR(TakePiece(connection));
  // Drops replies to commands sent before a change was noticed.
  for (; asked_ > 0; --asked_) {
    const Result<redis::Reply> rest = connection.Receive();
    if (!rest.ok()) return rest.error();
  }
  return {};
}

redis::ReplyLimit PieceReader::PieceLimit() const {
  return {limits_.max_value_bytes + redis::kLargeReply.bytes, true};
}

Result<redis::Reply> PieceReader::Receive(Connection& connection) {
  Result<redis::Reply> reply = connection.Receive();
  --asked_;
  if (reply.ok() && reply.value().dropped() > 0) {
    dropped_ = reply.value().dropped();
    SetState(State::kTooLarge);
    return reply;
  }
  if (!reply.ok() || !reply.value().IsError()) return reply;
  const Bytes words = reply.value().ErrorText();
  if (!StartsWith(words, "WRONGTYPE") && !StartsWith(words, "NOGROUP") && words != "ERR no such key") {
    return ForKey(connection.ToError(reply.value()), entry_);
  }
  SetState(State::kChanged);
  return reply;
}

}  // namespace prm::source
