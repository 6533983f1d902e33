#include "rdb/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <vector>

namespace prm::rdb {

std::string FormatStreamId(StreamId id) { return std::to_string(id.ms) + "-" + std::to_string(id.seq); }

std::string FormatScore(double score) {
  if (std::isinf(score)) return score > 0 ? "inf" : "-inf";
  char text[32];
  auto [end, error] = std::to_chars(text, text + sizeof text, score);
  (void)error;  // 32 bytes hold every double
  return std::string(text, end);
}

void AppendJsonString(Bytes text, std::string& json) {
  static constexpr char kHex[] = "0123456789abcdef";
  json += '"';
  size_t copied = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && c != '"' && c != '\\') continue;
    json += text.substr(copied, i - copied);
    copied = i + 1;
    if (byte >= 0x20) {
      json += '\\';
      json += c;
    } else {
      json += "\\u00";
      json += kHex[byte >> 4];
      json += kHex[byte & 15];
    }
  }
  json += text.substr(copied);
  json += '"';
}

namespace {

bool IsObject(ValueType type) { return type == ValueType::kHash || type == ValueType::kArray; }

bool HasFieldTwice(const StreamFields& fields) {
  std::vector<Bytes> names;
  for (const auto& [field, value] : fields) names.push_back(field);
  std::sort(names.begin(), names.end());
  return std::adjacent_find(names.begin(), names.end()) != names.end();
}

void AppendValues(const std::vector<Bytes>& values, std::string& json) {
  if (values.size() == 1) return AppendJsonString(values.front(), json);
  json += '[';
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) json += ", ";
    AppendJsonString(values[i], json);
  }
  json += ']';
}

}  // namespace

std::string StreamFieldsJson(const StreamFields& fields) {
  std::string json = "{";
  const auto append_name = [&json](Bytes field) {
    if (json.size() > 1) json += ", ";
    AppendJsonString(field, json);
    json += ": ";
  };
  if (!HasFieldTwice(fields)) {
    for (const auto& [field, value] : fields) {
      append_name(field);
      AppendJsonString(value, json);
    }
    return json + "}";
  }
  std::map<Bytes, std::vector<Bytes>> values_of;
  for (const auto& [field, value] : fields) values_of[field].push_back(value);
  for (const auto& [field, values] : values_of) {
    append_name(field);
    AppendValues(values, json);
  }
  return json + "}";
}

JsonCollector::JsonCollector(ValueType type, Interrupts& interrupts)
    : interrupts_(interrupts), closing_(IsObject(type) ? '}' : ']'), json_(IsObject(type) ? "{" : "[") {}

void JsonCollector::Separate() {
  if (!first_) json_ += ", ";
  first_ = false;
}

void JsonCollector::OnListElement(Bytes value) {
  Separate();
  AppendJsonString(value, json_);
}

void JsonCollector::OnSetMember(Bytes member) { OnListElement(member); }

void JsonCollector::OnHashField(Bytes field, Bytes value) {
  OnListElement(field);
  json_ += ": ";
  AppendJsonString(value, json_);
}

void JsonCollector::OnZsetMember(Bytes member, double score) {
  Separate();
  json_ += "{\"member\": ";
  AppendJsonString(member, json_);
  json_ += ", \"score\": ";
  if (std::isinf(score))
    AppendJsonString(FormatScore(score), json_);
  else
    json_ += FormatScore(score);
  json_ += "}";
}

void JsonCollector::OnStreamEntry(StreamId id, const StreamFields& fields) {
  Separate();
  json_ += "{\"id\": ";
  AppendJsonString(FormatStreamId(id), json_);
  json_ += ", \"fields\": " + StreamFieldsJson(fields) + "}";
}

std::string JsonCollector::Finish() {
  json_ += closing_;
  return std::move(json_);
}

}  // namespace prm::rdb
