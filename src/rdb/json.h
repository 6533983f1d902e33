// Values as JSON text, for every type but strings (whose bytes are JSON or are not).
//   hash, array (by its indexes): object; list, set: array of strings; zset: array of {"member", "score"};
//   stream: array of {"id", "fields"}
#pragma once

#include <string>

#include "rdb/value.h"

namespace prm::rdb {

// "1526919030474-55", as Redis prints stream ids.
std::string FormatStreamId(StreamId id);

// The shortest text that reads back as the same double; "inf" and "-inf" as redis-cli prints them.
std::string FormatScore(double score);

// Appends a JSON string. Bytes that are not ASCII are copied: their encoding is the caller's to check.
void AppendJsonString(Bytes text, std::string& json);

// {"field": "value", ...}. A field that occurs more than once has an array of its values, in their order.
std::string StreamFieldsJson(const StreamFields& fields);

// Collects a value as JSON text. An infinite score becomes a string, as JSON has no such number.
class JsonCollector : public ValueVisitor {
 public:
  // Starts a value of the given type, which must not be kString. interrupts: whom to ask in between; must
  // outlive the collector.
  JsonCollector(ValueType type, Interrupts& interrupts);
  void CheckInterrupts() override { interrupts_.CheckInterrupts(); }
  void OnListElement(Bytes value) override;
  void OnSetMember(Bytes member) override;
  void OnHashField(Bytes field, Bytes value) override;
  void OnZsetMember(Bytes member, double score) override;
  void OnStreamEntry(StreamId id, const StreamFields& fields) override;

  // Ends the value and returns its text.
  std::string Finish();

 private:
  void Separate();

  Interrupts& interrupts_;
  char closing_;
  bool first_ = true;
  std::string json_;
};

}  // namespace prm::rdb
