#include "discover/value_kind.h"

#include <array>
#include <cstdint>
#include <vector>

#include "core/capture_type.h"
#include "discover/letters.h"

namespace prm {
namespace {

constexpr const char* kNames[kValueKinds] = {
    "empty",        "integer", "json object", "json array", "json scalar", "python pickle", "php",  "java",
    "ruby marshal", "rails",   "msgpack",     "gzip",       "zlib",        "zstd",          "text", "binary",
};

bool StartsWith(Bytes text, Bytes start) { return text.substr(0, start.size()) == start; }

// Whether bytes are UTF-8 (RFC 3629) without control bytes; a truncated sequence at the end is valid.
bool IsText(Bytes text, bool whole) {
  size_t i = 0;
  while (i < text.size()) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) {
      if ((byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7f) return false;
      ++i;
      continue;
    }
    const size_t length = byte >= 0xf0 && byte <= 0xf4   ? 4
                          : byte >= 0xe0 && byte <= 0xef ? 3
                          : byte >= 0xc2 && byte <= 0xdf ? 2
                                                         : 0;
    if (length == 0) return false;
    for (size_t k = 1; k < length; ++k) {
      if (i + k == text.size()) return !whole;
      const auto next = static_cast<unsigned char>(text[i + k]);
      const bool first = k == 1;
      if ((next & 0xc0) != 0x80 || (first && byte == 0xe0 && next < 0xa0) ||
          (first && byte == 0xed && next > 0x9f) || (first && byte == 0xf0 && next < 0x90) ||
          (first && byte == 0xf4 && next > 0x8f)) {
        return false;
      }
    }
    i += length;
  }
  return true;
}

// Checks JSON (RFC 8259), possibly truncated. The number of bytes bounds the nesting.
class JsonChecker {
 public:
  JsonChecker(Bytes text, bool whole) : text_(text), whole_(whole) {}

  bool Check() {
    SkipBlanks();
    if (!Value()) return false;
    if (cut_) return true;
    SkipBlanks();
    return at_ == text_.size();
  }

 private:
  // At the end of the bytes: valid if the value was truncated.
  bool Ended() {
    if (at_ < text_.size()) return false;
    cut_ = true;
    return true;
  }
  void SkipBlanks() {
    while (at_ < text_.size() && Bytes(" \t\r\n").find(text_[at_]) != Bytes::npos) ++at_;
  }

  // One value and all that it contains, without recursion.
  bool Value() {
    std::vector<char> open;
    bool want_value = true;
    for (;;) {
      SkipBlanks();
      if (Ended()) return !whole_;
      const char c = text_[at_];
      if (want_value) {
        if (c == '{' || c == '[') {
          open.push_back(c);
          ++at_;
          SkipBlanks();
          if (Ended()) return !whole_;
          if (text_[at_] == (c == '{' ? '}' : ']')) {
            ++at_;
            open.pop_back();
            want_value = false;
          } else if (c == '{' && !Name()) {
            return false;
          }
        } else if (!Scalar(c)) {
          return false;
        } else {
          want_value = false;
        }
        if (cut_) return !whole_;
        if (open.empty() && !want_value) return true;
        continue;
      }
      if (c == ',') {
        ++at_;
        if (open.back() == '{' && !Name()) return false;
        if (cut_) return !whole_;
        want_value = true;
      } else if (c == (open.back() == '{' ? '}' : ']')) {
        ++at_;
        open.pop_back();
        if (open.empty()) return true;
      } else {
        return false;
      }
    }
  }

  bool Name() {
    SkipBlanks();
    if (Ended()) return true;
    if (text_[at_] != '"' || !String()) return false;
    if (cut_) return true;
    SkipBlanks();
    if (Ended()) return true;
    return text_[at_++] == ':';
  }

  bool Scalar(char c) {
    if (c == '"') return String();
    if (c == '-' || IsDigit(c)) return Number();
    for (const Bytes word : {Bytes("true"), Bytes("false"), Bytes("null")}) {
      const Bytes there = text_.substr(at_, word.size());
      if (there == word) {
        at_ += word.size();
        return true;
      }
      if (!whole_ && at_ + there.size() == text_.size() && StartsWith(word, there)) {
        cut_ = true;
        return true;
      }
    }
    return false;
  }

  bool String() {
    for (++at_; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return true;
      }
      if (static_cast<unsigned char>(c) < 0x20) return false;
      if (c == '\\') {
        ++at_;
        if (at_ < text_.size() && Bytes("\"\\/bfnrtu").find(text_[at_]) == Bytes::npos) return false;
      }
    }
    at_ = text_.size();
    cut_ = true;
    return true;
  }

  bool Number() {
    if (text_[at_] == '-') ++at_;
    if (Ended()) return true;
    if (text_[at_] == '0') {
      ++at_;
    } else if (!Digits()) {
      return false;
    }
    if (at_ < text_.size() && text_[at_] == '.') {
      ++at_;
      if (Ended()) return true;
      if (!Digits()) return false;
    }
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      ++at_;
      if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
      if (Ended()) return true;
      if (!Digits()) return false;
    }
    return true;
  }

  bool Digits() {
    const size_t first = at_;
    while (at_ < text_.size() && IsDigit(text_[at_])) ++at_;
    return at_ > first;
  }

  const Bytes text_;
  const bool whole_;
  size_t at_ = 0;
  bool cut_ = false;
};

// Checks MessagePack (its specification, "Formats"), possibly truncated. A single byte is no evidence, so the
// value must be an array or a map.
bool IsMsgpack(Bytes text, bool whole) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const bool container = (first >= 0x80 && first <= 0x9f) || (first >= 0xdc && first <= 0xdf);
  if (!container || text.size() < 2) return false;
  size_t at = 0;
  uint64_t wanted = 1;
  while (wanted > 0) {
    if (at == text.size()) return !whole;
    const unsigned char code = byte(at++);
    --wanted;
    size_t length_bytes = 0;  // of the size that follows the code
    uint64_t skip = 0;        // bytes of content
    bool sized = false, is_map = false, is_array = false;
    if (code <= 0x7f || code >= 0xe0 || code == 0xc0 || code == 0xc2 || code == 0xc3) {
    } else if (code <= 0x8f) {
      wanted += 2 * (code & 0x0f);
    } else if (code <= 0x9f) {
      wanted += code & 0x0f;
    } else if (code <= 0xbf) {
      skip = code & 0x1f;
    } else if (code == 0xc1) {
      return false;
    } else if (code >= 0xc4 && code <= 0xc9) {
      sized = true;
      length_bytes = size_t{1} << ((code - 0xc4) % 3);
      skip = code >= 0xc7 ? 1 : 0;  // the type of an extension
    } else if (code == 0xca || code == 0xcb) {
      skip = code == 0xca ? 4 : 8;
    } else if (code <= 0xd3) {
      skip = uint64_t{1} << ((code - 0xcc) % 4);
    } else if (code <= 0xd8) {
      skip = 1 + (uint64_t{1} << (code - 0xd4));
    } else if (code <= 0xdb) {
      sized = true;
      length_bytes = size_t{1} << (code - 0xd9);
    } else {
      is_array = code <= 0xdd;
      is_map = !is_array;
      length_bytes = (code & 1) == 0 ? 2 : 4;
    }
    uint64_t size = 0;
    for (size_t i = 0; i < length_bytes; ++i) {
      if (at == text.size()) return !whole;
      size = size << 8 | byte(at++);
    }
    if (sized) skip += size;
    if (is_array) wanted += size;
    if (is_map) wanted += 2 * size;
    if (skip > text.size() - at) return !whole;
    at += skip;
  }
  return at == text.size();
}

// serialize(): i:1; d:0.5; b:1; s:3:"abc"; a:2:{ O:8:"stdClass":1:{ C: E: N;
bool IsPhp(Bytes text) {
  if (text.size() >= 2 && text[0] == 'N' && text[1] == ';') return true;
  if (text.size() < 4 || text[1] != ':') return false;
  size_t i = 2;
  switch (text[0]) {
    case 'b':
      return (text[2] == '0' || text[2] == '1') && text[3] == ';';
    case 'i':
    case 'd':
      while (i < text.size() && (IsDigit(text[i]) || Bytes("-+.eE").find(text[i]) != Bytes::npos)) ++i;
      return i > 2 && i < text.size() && text[i] == ';';
    case 'a':
    case 's':
    case 'O':
    case 'C':
    case 'E':
      while (i < text.size() && IsDigit(text[i])) ++i;
      return i > 2 && i + 1 < text.size() && text[i] == ':' && text[i + 1] == (text[0] == 'a' ? '{' : '"');
    default:
      return false;
  }
}

// name|value of serialize(), again and again.
bool IsPhpSession(Bytes text) {
  const size_t bar = text.substr(0, 64).find('|');
  return bar != Bytes::npos && bar > 0 && text.substr(0, bar).find_first_of(" \t\n{\"") == Bytes::npos &&
         IsPhp(text.substr(bar + 1));
}

// Protocols 2 to 5 begin with PROTO; the text protocol 0 with MARK or GLOBAL in its usual forms.
bool IsPickle(Bytes text, bool whole) {
  if (text[0] == '\x80' && text.size() > 2 && text[1] >= 2 && text[1] <= 5) {
    return !whole || text.back() == '.';
  }
  const bool old = StartsWith(text, "(dp") || StartsWith(text, "(lp") || StartsWith(text, "ccopy_reg\n") ||
                   StartsWith(text, "(i__main__\n");
  return old && text.find('\n') != Bytes::npos && (!whole || text.back() == '.');
}

bool IsMarshal(Bytes text) {
  constexpr Bytes kTypes = "0TFi\"[{:;IoScmMdlfeuU/@}C";
  return text.size() > 2 && text[0] == '\x04' && text[1] == '\x08' && kTypes.find(text[2]) != Bytes::npos;
}

bool IsZlib(Bytes text) {
  if (text.size() < 3 || (text[0] & 0x0f) != 8 || (text[0] >> 4 & 0x0f) > 7) return false;
  const auto high = static_cast<unsigned char>(text[0]);
  const auto low = static_cast<unsigned char>(text[1]);
  // Window sizes other than 32 kB look like text too often.
  return high == 0x78 && (high * 256 + low) % 31 == 0 && (low & 0x20) == 0;
}

}  // namespace

ValueKind DetectValueKind(Bytes prefix, bool whole) {
  if (prefix.empty()) return ValueKind::kEmpty;
  if (whole && FitsType(CaptureType::kInt, prefix)) return ValueKind::kInteger;
  if (StartsWith(prefix, Bytes("\xac\xed\x00\x05", 4))) return ValueKind::kJava;
  if (StartsWith(prefix, "\x1f\x8b\x08")) return ValueKind::kGzip;
  if (StartsWith(prefix, "\x28\xb5\x2f\xfd")) return ValueKind::kZstd;
  if (StartsWith(prefix, Bytes("\x00\x11", 2))) return ValueKind::kRails;
  if (IsMarshal(prefix)) return ValueKind::kMarshal;
  if (IsPickle(prefix, whole)) return ValueKind::kPickle;
  if (IsMsgpack(prefix, whole)) return ValueKind::kMsgpack;
  const bool text = IsText(prefix, whole);
  // If all bytes are text, this is a text that begins with x rather than zlib.
  if (!text && IsZlib(prefix)) return ValueKind::kZlib;
  const size_t begin = prefix.find_first_not_of(" \t\r\n");
  if (text && begin != Bytes::npos && JsonChecker(prefix, whole).Check()) {
    if (prefix[begin] == '{') return ValueKind::kJsonObject;
    if (prefix[begin] == '[') return ValueKind::kJsonArray;
    return ValueKind::kJsonScalar;
  }
  // Strings inside may hold any bytes.
  if (IsPhp(prefix) || IsPhpSession(prefix)) return ValueKind::kPhp;
  return text ? ValueKind::kText : ValueKind::kBinary;
}

const char* ValueKindName(ValueKind kind) { return kNames[static_cast<size_t>(kind)]; }

}  // namespace prm
