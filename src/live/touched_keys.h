// Keys that live sync has changed since a verification began: a cutover compares them while writes are held
// back. So many are kept and no more; that there are more is kept, too.
#pragma once

#include "core/key_id.h"
#include "pg/pg.h"

namespace prm {

class TouchedKeys {
 public:
  explicit TouchedKeys(std::string migration) : migration_(std::move(migration)) {}

  // Notes keys that are about to be stored, in the transaction that stores them. Asks for the verification
  // that has begun last: what it reads is at least as new as a key that was taken before it began. Needs SPI;
  // with the rights of the extension's owner.
  void Note(const std::vector<const KeyId *> &keys);

  struct Found {
    bool is_known = false;  // there is a verification, and the keys since it began are kept
    bool has_more = false;
    std::vector<KeyId> keys;
  };
  // Those since the last verification began that has proved the mappings of all these patterns equal. Needs
  // SPI; with the rights of the extension's owner.
  static Found Read(const std::string &migration, const std::vector<std::string> &patterns);

 private:
  void Begin(int64 verification);

  std::string migration_;
  int64 verification_ = 0;  // 0: none yet
  bool has_more_ = false;
  size_t kept_ = 0;   // rows of the table, those of earlier verifications included
  uint64 bytes_ = 0;  // of names_
  std::set<KeyId> names_;
};

}  // namespace prm
