// Values as JSON text, for every type but strings (whose bytes may be JSON themselves).
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

// Appends a JSON string. Copies bytes that are not ASCII: the caller checks their encoding.
void AppendJsonString(Bytes text, std::string& json);

// {"field": "value", ...}. A field that occurs more than once gets an array of its values, in order.
std::string StreamFieldsJson(const StreamFields& fields);

// Collects a value as JSON text. An infinite score becomes a string, since JSON has no infinity.
class JsonCollector : public ValueVisitor {
 public:
  // Starts a value of the given type, which must not be kString. interrupts: checked now and then; must
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
