// Which pattern owns a key, and in which pass over the source it is read.
#pragma once

#include "mapping/catalog.h"

namespace prm {

struct Route {
  enum Kind {
    kMapped,
    kMisfit,       // a capture does not fit its type
    kDeclared,     // skip_keys, or a key of a reverse feed
    kNotSelected,  // by priority or mapping, or only patterns of other databases fit
    kUnmapped,
  } kind = kUnmapped;
  std::optional<size_t> pattern;  // the number of the owner
  size_t misfit = 0;              // kMisfit: the number of the capture

  // Whether the key is one of the family of that pattern.
  bool IsOfFamily() const { return kind == kMapped || kind == kMisfit; }

  // As entries carry it from the filter that found it. Not 0.
  uint64_t ToNumber() const;
  // Errors: XX000 for 0, which a key has that was not routed.
  static Route FromNumber(uint64_t number);
};

// The passes of a run: one for each level of priority and dependency, in order. Keys without selected
// mappings (unmapped, skipped) are counted in the last pass.
class Routing {
 public:
  // priority, mapping: only these, if given. Errors: 42704 for a mapping that does not exist, 22023.
  Routing(const Migration &migration, const std::optional<std::string> &priority,
          const std::optional<std::string> &mapping);

  int levels() const { return levels_; }
  std::string LevelName(int level) const;
  // Patterns by their number, those of skip_keys too.
  const std::vector<KeyPattern> &patterns() const { return patterns_->patterns(); }
  // The mappings of a pattern that are selected, in the order in which they are fed.
  const std::vector<const Mapping *> &MappingsOf(size_t pattern) const { return owners_[pattern].mappings; }

  // All mappings that are selected, and their names.
  std::vector<const Mapping *> Mappings() const;
  std::vector<std::string> MappingNames() const;

  // The route of a key, whatever the level. `match` is scratch memory.
  Route Find(int db, Bytes key, Match &match) const;
  // The level at which a key with this route is counted.
  int LevelOf(const Route &route) const;
  // Whether a key with this route is one of those that the run is about: with a priority or a mapping, those
  // of its patterns alone.
  bool IsSelected(const Route &route) const;

 private:
  struct Owner {
    bool declared = false;
    std::vector<const Mapping *> mappings;  // that are selected
    DatabaseNumbers databases;
    int level = 0;
  };

  std::vector<std::string> level_names_;
  std::vector<Owner> owners_;  // of each pattern of the set
  std::unique_ptr<PatternSet> patterns_;
  int levels_ = 1;
  bool filtered_ = false;  // keys that no pattern owns are not asked for
};

// Mappings in an order in which each comes after those it depends on. Errors: 42704 for an unknown mapping,
// 22023 for a cycle or for a mapping that depends on one of lower priority; each names the mappings.
std::vector<const Mapping *> InDependencyOrder(const Migration &migration);

}  // namespace prm
