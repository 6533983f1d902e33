// Hashes, lists and sets as jsonb without JSON text in between.
#pragma once

#include "pg/guard.h"
#include "pg/pg.h"
#include "rdb/value.h"

namespace prm {

// Collects a value as the jsonb that its JSON text (rdb/json.h) would become.
class JsonbCollector : public rdb::ValueVisitor {
 public:
  // Whether it takes values of the type.
  static bool Takes(rdb::ValueType type);

  // Starts a value of a type that it takes.
  explicit JsonbCollector(rdb::ValueType type) : is_object_(type == rdb::ValueType::kHash) {}
  void CheckInterrupts() override;
  void OnListElement(Bytes value) override { Add(value); }
  void OnSetMember(Bytes member) override { Add(member); }
  void OnHashField(Bytes field, Bytes value) override {
    Add(field);
    Add(value);
  }

  // Whether all strings were text of the server's encoding. If not, only JSON text tells what is wrong.
  bool is_text() const { return is_text_; }

  // The jsonb, in the current memory context. Errors: 54000, 53200.
  Datum ToJsonb() const;

 private:
  void Add(Bytes utf8);

  bool is_object_;
  bool is_text_ = true;
  std::string bytes_;  // of all strings, in the server's encoding
  std::vector<int> sizes_;
  std::string scratch_;
};

}  // namespace prm
