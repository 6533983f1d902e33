// Key patterns: which keys a mapping takes, and the text of their captures.
//
// A pattern is literal text in which
//   {name} and {name:type}  capture one or more bytes; types are those of core/capture_type.h, text when left
//   out
//   *                       stands for any bytes, also none
//   \{  \}  \*  \\          stand for the characters themselves; a bare } does, too
// Between two wildcards (captures or *) there is literal text, otherwise nothing would say where one ends.
// Keys are compared byte by byte: glob characters and zero bytes in keys are ordinary.
//
// A key has the pattern's skeleton when it fits regardless of types. Where a key can be divided in several
// ways, wildcards are settled from left to right: typed captures take as much, text captures and * as little
// as the rest allows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/bytes.h"
#include "core/capture_type.h"
#include "core/status.h"

namespace prm {

struct Capture {
  std::string name;
  CaptureType type = CaptureType::kText;
};

enum class Fit {
  kNone,    // the key does not have the skeleton
  kMisfit,  // the skeleton fits, but no division satisfies all types
  kFits,
};

// The result of matching a key. Reused from key to key it costs no allocation.
struct Match {
  // The text of each capture, in order; views into the key. With kMisfit, of the division that came furthest.
  std::vector<Bytes> values;
  // With kMisfit: index of the first capture whose text is not a value of its type.
  size_t misfit = 0;
  // Scratch memory of the search.
  std::vector<bool> failed;
};

class KeyPattern {
 public:
  // Limits: bytes of a pattern's text, and wildcards in it.
  static constexpr size_t kMaxTextBytes = 1024;
  static constexpr size_t kMaxWildcards = 64;

  // Parses a pattern in the syntax above. Errors: kInvalidArgument, with detail and hint, for a syntax error,
  // for two captures of one name, and for a capture with the name of a column of the batch relation. shown:
  // the text that text() returns, where the user's encoding is not that of keys.
  static Result<KeyPattern> Parse(std::string_view text, std::string_view shown = {});

  const std::string& text() const { return text_; }
  const std::vector<Capture>& captures() const { return captures_; }
  bool has_star() const { return captures_.size() < wildcards_.size(); }

  // Matches a whole key. Time grows with the length of the key, whatever its bytes: at most one visit for
  // each wildcard and byte. `match` is filled unless the result is kNone.
  Fit MatchKey(Bytes key, Match& match) const;

  // The key with these texts of the captures, in order. The pattern has no star.
  std::string Compose(const std::vector<std::string>& values) const;

  // A glob as of SCAN's MATCH that all keys with the skeleton fit.
  std::string Glob() const;

  // Whether a key can have the skeletons of both patterns.
  bool Overlaps(const KeyPattern& other) const;

  // Whether every key that fits `other` fits this pattern, because both have the same literal text and each
  // wildcard here takes all that the one of `other` takes. Patterns of different literal text are not
  // compared.
  bool Covers(const KeyPattern& other) const;

  // A total order of patterns with different texts: more literal bytes first, then more typed captures,
  // then fewer stars, then by text.
  static bool MoreSpecific(const KeyPattern& a, const KeyPattern& b);

 private:
  friend class KeySearch;
  friend class PatternReader;

  struct Wildcard {
    bool is_star = false;
    CaptureType type = CaptureType::kText;
    std::string literal;  // the text that follows

    size_t min_bytes() const { return is_star ? 0 : 1; }
  };

  KeyPattern() = default;

  std::string text_;
  std::string prefix_;  // the literal text before the first wildcard
  std::vector<Wildcard> wildcards_;
  std::vector<Capture> captures_;  // of those wildcards that are not stars
  size_t literal_bytes_ = 0;
};

// The patterns of a migration; each key belongs to one of them.
class PatternSet {
 public:
  explicit PatternSet(std::vector<KeyPattern> patterns);

  // As given to the constructor.
  const std::vector<KeyPattern>& patterns() const { return patterns_; }

  struct Owner {
    Fit fit = Fit::kNone;
    size_t pattern = 0;  // index in patterns(), unless kNone
  };

  // The most specific pattern that fits with its types; failing that, the most specific one whose skeleton
  // fits (kMisfit). `match` is that of the owner.
  Owner FindOwner(Bytes key, Match& match) const {
    return FindOwner(key, match, [](size_t) { return true; });
  }

  // Considers only patterns for whose index takes(index) holds.
  template <typename Takes>
  Owner FindOwner(Bytes key, Match& match, Takes takes) const {
    Owner misfit;
    for (const size_t index : order_) {
      if (!takes(index)) continue;
      const Fit fit = patterns_[index].MatchKey(key, match);
      if (fit == Fit::kFits) return {fit, index};
      if (fit == Fit::kMisfit && misfit.fit == Fit::kNone) misfit = {fit, index};
    }
    if (misfit.fit == Fit::kMisfit) patterns_[misfit.pattern].MatchKey(key, match);
    return misfit;
  }

 private:
  std::vector<KeyPattern> patterns_;
  std::vector<size_t> order_;  // indexes, most specific first
};

}  // namespace prm
