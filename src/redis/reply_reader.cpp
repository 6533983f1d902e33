#include "redis/reply_reader.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <new>

namespace prm::redis {

namespace {

// A buffer that has grown beyond this is freed once it is empty.
constexpr size_t kKeptBufferBytes = size_t{1} << 20;

// The line that a reply begins with, and the bytes of a string behind it.
struct Element {
  char type;
  int64_t number = 0;  // of ':', '$' and '*'
  Bytes text;          // the line's, or the string's
  size_t size = 0;     // of the whole, without the elements of an array
};

Element FirstElement(Bytes bytes) {
  const size_t end = bytes.find("\r\n", 1);
  Element element = {bytes.front(), 0, bytes.substr(1, end - 1), end + 2};
  if (element.type == '+' || element.type == '-') return element;
  std::from_chars(element.text.data(), element.text.data() + element.text.size(), element.number);
  if (element.type == '$' && element.number >= 0) {
    const auto length = static_cast<size_t>(element.number);
    element.text = bytes.substr(element.size, length);
    element.size += length + 2;
  }
  return element;
}

ReplyNode NodeOf(const Element& element) {
  switch (element.type) {
    case '+':
      return {ReplyType::kStatus, 0, element.text, nullptr, 0};
    case '-':
      return {ReplyType::kError, 0, element.text, nullptr, 0};
    case ':':
      return {ReplyType::kInteger, element.number, {}, nullptr, 0};
    default:
      break;
  }
  if (element.number < 0) return {};
  if (element.type == '$') return {ReplyType::kString, 0, element.text, nullptr, 0};
  return {ReplyType::kArray, 0, {}, nullptr, static_cast<size_t>(element.number)};
}

// Makes the node at the beginning of the bytes, and behind `free` all that it contains, and moves both on.
void Fill(ReplyNode* node, Bytes& bytes, ReplyNode*& free) {
  const Element element = FirstElement(bytes);
  bytes.remove_prefix(element.size);
  new (node) ReplyNode(NodeOf(element));
  ReplyNode* const elements = free;
  node->elements = elements;
  free += node->count;
  for (size_t i = 0; i < node->count; ++i) Fill(elements + i, bytes, free);
}

}  // namespace

bool ReplyReader::Feed(const char* bytes, size_t size) {
  try {
    input_.erase(0, taken_);
    taken_ = 0;
    input_.append(bytes, size);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

bool ReplyReader::Reserve(size_t size) {
  try {
    if (input_.capacity() - input_.size() < size) input_.reserve(input_.size() + size);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

OwnedReply ReplyReader::Next() {
  const Bytes bytes = Bytes(input_).substr(taken_);
  size_t nodes = 1;
  size_t size = 0;
  for (size_t left = 1; left > 0; --left) {
    const Element element = FirstElement(bytes.substr(size));
    size += element.size;
    if (element.type != '*' || element.number <= 0) continue;
    nodes += static_cast<size_t>(element.number);
    left += static_cast<size_t>(element.number);
  }
  auto* const reply = static_cast<ReplyNode*>(std::malloc(nodes * sizeof(ReplyNode) + size));
  if (reply == nullptr) return nullptr;
  auto* const text = reinterpret_cast<char*>(reply + nodes);
  std::memcpy(text, bytes.data(), size);
  Bytes rest(text, size);
  ReplyNode* free = reply + 1;
  Fill(reply, rest, free);
  taken_ += size;
  if (taken_ == input_.size()) {
    input_.clear();
    taken_ = 0;
    if (input_.capacity() > kKeptBufferBytes) std::string().swap(input_);
  }
  return OwnedReply(reply);
}

}  // namespace prm::redis
