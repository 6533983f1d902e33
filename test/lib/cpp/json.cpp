#include "lib/cpp/json.h"

#include <cctype>
#include <stdexcept>

namespace prm::test {

namespace {

class Parser {
 public:
  explicit Parser(Bytes text) : text_(text) {}

  Json Document() {
    if (Peek() == '[') return Value();
    Json object;
    object.kind = Json::kObject;
    const bool braces = Peek() == '{';
    if (braces) ++at_;
    while (Peek() != '\0' && Peek() != '}') Member(object);
    return object;
  }

 private:
  // The next character that means something, '\0' at the end.
  char Peek() {
    while (at_ < text_.size() && (std::isspace(static_cast<unsigned char>(text_[at_])) || text_[at_] == ','))
      ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  void Expect(char wanted) {
    if (Peek() != wanted) throw std::runtime_error("bad JSON at byte " + std::to_string(at_));
    ++at_;
  }

  void Member(Json& object) {
    const std::string name = String();
    Expect(':');
    object.members[name] = Value();
  }

  Json Value() {
    Json value;
    switch (Peek()) {
      case '{':
        value.kind = Json::kObject;
        ++at_;
        while (Peek() != '}') Member(value);
        ++at_;
        break;
      case '[':
        value.kind = Json::kArray;
        ++at_;
        while (Peek() != ']') value.items.push_back(Value());
        ++at_;
        break;
      case '"':
        value.text = String();
        break;
      default:
        while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) ||
                                      text_[at_] == '-' || text_[at_] == '+' || text_[at_] == '.'))
          value.text += text_[at_++];
        if (value.text.empty()) throw std::runtime_error("bad JSON at byte " + std::to_string(at_));
    }
    return value;
  }

  std::string String() {
    Expect('"');
    std::string bytes;
    for (; text_.at(at_) != '"'; ++at_) {
      if (text_[at_] != '\\') {
        bytes += text_[at_];
        continue;
      }
      switch (text_.at(++at_)) {
        case 'n':
          bytes += '\n';
          break;
        case 't':
          bytes += '\t';
          break;
        case 'r':
          bytes += '\r';
          break;
        case 'b':
          bytes += '\b';
          break;
        case 'f':
          bytes += '\f';
          break;
        case 'u':
          bytes += static_cast<char>(std::stoi(std::string(text_.substr(at_ + 1, 4)), nullptr, 16));
          at_ += 4;
          break;
        default:
          bytes += text_[at_];
      }
    }
    ++at_;
    return bytes;
  }

  Bytes text_;
  size_t at_ = 0;
};

}  // namespace

Json ParseJson(Bytes text) { return Parser(text).Document(); }

}  // namespace prm::test
