#include "core/text_gate.h"

#include <algorithm>

#include "core/printable.h"

namespace prm {

namespace {

// Fewer characters of a secret reveal nothing and occur anywhere.
constexpr size_t kShortestRun = 4;
constexpr size_t kShortestQuoted = 8;

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string Lower(Bytes text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) { return Lower(c); });
  return lower;
}

bool IsQuote(char c) { return c == '\\' || c == '"' || c == '\''; }

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Text with or without its quotes and escapes, and the original positions of its characters.
struct Unquoted {
  std::string text;
  std::vector<size_t> from;   // where each of its characters begins,
  std::vector<size_t> until;  // and where it ends
};

// As C, Redis and JSON escape: \n, \x0a, \" …
Unquoted Unquote(const std::string& lower) {
  Unquoted unquoted;
  const auto add = [&](char c, size_t from, size_t until) {
    if (IsQuote(c)) return;
    unquoted.text += c;
    unquoted.from.push_back(from);
    unquoted.until.push_back(until);
  };
  for (size_t i = 0; i < lower.size(); ++i) {
    const size_t left = lower.size() - i - 1;
    if (lower[i] != '\\' || left == 0) {
      add(lower[i], i, i + 1);
      continue;
    }
    constexpr char kEscapes[] = "nrtab";
    constexpr char kEscaped[] = "\n\r\t\a\b";
    const size_t escape = Bytes(kEscapes).find(lower[i + 1]);
    const int high = left > 2 && lower[i + 1] == 'x' ? HexDigit(lower[i + 2]) : -1;
    const int low = high >= 0 ? HexDigit(lower[i + 3]) : -1;
    if (low >= 0) {
      add(Lower(static_cast<char>(high * 16 + low)), i, i + 4);
      i += 3;
    } else {
      add(escape != Bytes::npos ? kEscaped[escape] : lower[i + 1], i, i + 2);
      ++i;
    }
  }
  return unquoted;
}

Unquoted AsItIs(const std::string& text) {
  Unquoted same{text, {}, {}};
  for (size_t i = 0; i < text.size(); ++i) {
    same.from.push_back(i);
    same.until.push_back(i + 1);
  }
  return same;
}

// For each position of the text, where the words end that it lies in; 0 if it is in none.
std::vector<size_t> EndsOf(std::initializer_list<Bytes> words, Bytes text) {
  std::vector<size_t> ends(text.size());
  for (const Bytes word : words) {
    for (size_t at = text.find(word); at != Bytes::npos; at = text.find(word, at + 1)) {
      for (size_t i = at; i < at + word.size(); ++i) ends[i] = std::max(ends[i], at + word.size());
    }
  }
  return ends;
}

// Marks the parts of the text that occur in the secret, but for those within words.
void Mark(const Unquoted& unquoted, const std::string& secret, const std::vector<size_t>& ends,
          std::vector<bool>& marked) {
  const std::string& text = unquoted.text;
  const size_t least = std::min(kShortestRun, secret.size());
  for (size_t i = 0; i + least <= text.size(); ++i) {
    size_t longest = 0;
    for (size_t at = secret.find(text.data() + i, 0, least); at != std::string::npos;
         at = secret.find(text.data() + i, at + 1, least)) {
      size_t length = least;
      while (i + length < text.size() && at + length < secret.size() &&
             text[i + length] == secret[at + length])
        ++length;
      longest = std::max(longest, length);
    }
    if (longest == 0 || unquoted.until[i + longest - 1] <= ends[unquoted.from[i]]) continue;
    for (size_t at = unquoted.from[i]; at < unquoted.until[i + longest - 1]; ++at) marked[at] = true;
  }
}

}  // namespace

TextGate::TextGate(const std::vector<std::string>& secrets) {
  for (const std::string& secret : secrets) {
    std::string lower = Lower(secret);
    std::string bare = lower;
    bare.erase(std::remove_if(bare.begin(), bare.end(), IsQuote), bare.end());
    if (!bare.empty() && bare != lower) secrets_.push_back(std::move(bare));
    if (!lower.empty()) secrets_.push_back(std::move(lower));
  }
}

std::string TextGate::Pass(Bytes text, size_t limit, std::initializer_list<Bytes> words) const {
  const Bytes shown = text.substr(0, limit);
  if (secrets_.empty()) return Printable(text, limit);
  const std::string lower = Lower(shown);
  const Unquoted as_it_is = AsItIs(lower);
  const Unquoted unquoted = Unquote(lower);
  const std::vector<size_t> ends = EndsOf(words, shown);
  std::vector<bool> marked(lower.size());
  for (const std::string& secret : secrets_) {
    Mark(as_it_is, secret, ends, marked);
    Mark(unquoted, secret, ends, marked);
  }
  std::string passed;
  for (size_t begin = 0; begin < shown.size();) {
    size_t end = begin;
    while (end < shown.size() && marked[end] == marked[begin]) ++end;
    passed += marked[begin] ? "***" : Printable(shown.substr(begin, end - begin), end - begin);
    begin = end;
  }
  if (text.size() > limit) passed += "...";
  return passed;
}

bool TextGate::Quotes(Bytes text) const {
  const std::string lower = Lower(text);
  return std::any_of(secrets_.begin(), secrets_.end(), [&](const std::string& secret) {
    return secret.size() >= kShortestQuoted && lower.find(secret) != std::string::npos;
  });
}

}  // namespace prm
