// Which pattern owns a key, and in which pass over the source it is read.
#pragma once

#include "store/pattern_group.h"

namespace prm {

struct Route {
  enum Kind {
    kMapped,       // to the group
    kMisfit,       // a capture of the group's pattern does not fit its type
    kDeclared,     // skip_keys
    kNotSelected,  // by priority or mapping, or only patterns of other databases fit
    kUnmapped,
  } kind = kUnmapped;
  size_t group = 0;        // kMapped, kMisfit
  Tally::Pattern pattern;  // the owner, if any
  std::string misfit;      // kMisfit: the capture
};

// The passes of a run: one for each level of priority and dependency, in order. Keys without a group of their
// own (unmapped, skipped) are counted in the last pass.
class Routing {
 public:
  // priority, mapping: only these, if given. Errors: 42704 for a mapping that does not exist, 22023.
  Routing(const Migration &migration, const std::optional<std::string> &priority,
          const std::optional<std::string> &mapping);

  int levels() const { return levels_; }
  std::string LevelName(int level) const;
  PatternGroup &group(size_t index) { return groups_[index]; }
  size_t group_count() const { return groups_.size(); }
  int LevelOf(size_t group) const { return level_of_group_[group]; }

  // The names of the mappings that are selected.
  std::vector<std::string> MappingNames() const;

  // The route of a key, whatever the level. The captures are left in `match`.
  Route Find(int db, Bytes key, Match &match) const;
  // The level at which a key with this route is counted.
  int LevelOf(const Route &route) const;
  // Whether a key with this route is one of those that the run is about: with a priority or a mapping, those
  // of its patterns alone.
  bool IsSelected(const Route &route) const;

 private:
  struct Owner {
    bool declared = false;
    bool selected = true;
    size_t group = 0;
    DatabaseNumbers databases;
  };

  std::vector<PatternGroup> groups_;
  std::vector<int> level_of_group_;
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
