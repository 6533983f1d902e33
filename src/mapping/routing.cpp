#include "mapping/routing.h"

#include "core/position_key.h"
#include "pg/memory.h"

namespace prm {

using pg::Failure;

namespace {

class DependencyOrder {
 public:
  explicit DependencyOrder(const Migration &migration) : migration_(migration) {
    for (const Mapping &mapping : migration.mappings) Visit(mapping);
  }
  std::vector<const Mapping *> order;
  std::map<std::string, int> depth;  // the longest chain of other patterns' mappings before this one

 private:
  void Visit(const Mapping &mapping) {
    if (depth.count(mapping.name)) return;
    if (!open_.insert(mapping.name).second)
      throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                    "mapping \"" + mapping.name + "\" depends on itself, directly or through others");
    int deepest = 0;
    for (const std::string &name : mapping.depends_on) {
      const Mapping &other = Find(name, mapping);
      if (PriorityRank(other.priority) > PriorityRank(mapping.priority))
        throw Failure(ERRCODE_INVALID_PARAMETER_VALUE,
                      "mapping \"" + mapping.name + "\" of priority " + mapping.priority +
                          " depends on mapping \"" + name + "\" of lower priority " + other.priority,
                      "", "Give \"" + name + "\" priority " + mapping.priority + " or higher.");
      Visit(other);
      deepest = std::max(deepest, depth[name] + (other.pattern == mapping.pattern ? 0 : 1));
    }
    open_.erase(mapping.name);
    depth[mapping.name] = deepest;
    order.push_back(&mapping);
  }

  const Mapping &Find(const std::string &name, const Mapping &dependent) const {
    for (const Mapping &mapping : migration_.mappings)
      if (mapping.name == name) return mapping;
    throw Failure(
        ERRCODE_UNDEFINED_OBJECT,
        "mapping \"" + dependent.name + "\" depends on mapping \"" + name + "\", which does not exist", "",
        "Add \"" + name + "\" first.");
  }

  const Migration &migration_;
  std::set<std::string> open_;
};

}  // namespace

// The kind in 3 bits, the capture in 8, the pattern above them, each counted from 1.
uint64_t Route::ToNumber() const {
  uint64_t const owner = pattern ? *pattern + 1 : 0;
  return owner << 11 | static_cast<uint64_t>(misfit) << 3 | (static_cast<uint64_t>(kind) + 1);
}

Route Route::FromNumber(uint64_t number) {
  if (number == 0) throw Failure(ERRCODE_INTERNAL_ERROR, "a key was stored before it was routed");
  Route route;
  route.kind = static_cast<Kind>((number & 7) - 1);
  route.misfit = number >> 3 & 255;
  if (uint64_t const owner = number >> 11; owner > 0) route.pattern = owner - 1;
  return route;
}

std::vector<const Mapping *> InDependencyOrder(const Migration &migration) {
  return DependencyOrder(migration).order;
}

Routing::Routing(const Migration &migration, const std::optional<std::string> &priority,
                 const std::optional<std::string> &mapping) {
  if (priority) PriorityRank(*priority);
  filtered_ = priority.has_value() || mapping.has_value();
  DependencyOrder dependencies(migration);
  std::map<std::string, std::vector<const Mapping *>> by_pattern;
  std::map<std::string, std::pair<int, int>> rank_of_pattern;  // (priority, depth)
  bool found = !mapping.has_value();
  for (const Mapping *candidate : dependencies.order) {
    found = found || candidate->name == *mapping;
    by_pattern[candidate->pattern].push_back(candidate);
    auto rank = std::make_pair(PriorityRank(candidate->priority), dependencies.depth[candidate->name]);
    auto [known, fresh] = rank_of_pattern.emplace(candidate->pattern, rank);
    if (!fresh) known->second = std::max(known->second, rank);
  }
  if (!found)
    throw Failure(ERRCODE_UNDEFINED_OBJECT,
                  "mapping \"" + *mapping + "\" of migration \"" + migration.name + "\" does not exist");

  std::vector<KeyPattern> patterns;
  std::set<std::pair<int, int>> ranks;
  for (auto &[text, mappings] : by_pattern) {
    Owner owner;
    owner.databases = mappings[0]->databases;
    for (const Mapping *candidate : mappings)
      if ((!priority || candidate->priority == *priority) && (!mapping || candidate->name == *mapping))
        owner.mappings.push_back(candidate);
    if (!owner.mappings.empty()) ranks.insert(rank_of_pattern[text]);
    patterns.push_back(ParsePattern(text));
    owners_.push_back(owner);
  }
  for (const std::string &text : migration.skip_patterns) {
    patterns.push_back(ParsePattern(text));
    Owner owner;
    owner.declared = true;
    owners_.push_back(owner);
  }
  patterns_ = std::make_unique<PatternSet>(std::move(patterns));
  for (const auto &rank : ranks)
    level_names_.push_back(std::string(kPriorityNames[rank.first]) +
                           (rank.second > 0 ? ", dependents " + std::to_string(rank.second) : ""));
  size_t number = 0;
  for (const auto &[text, mappings] : by_pattern)
    owners_[number++].level =
        static_cast<int>(std::distance(ranks.begin(), ranks.find(rank_of_pattern[text])));
  levels_ = std::max(1, static_cast<int>(ranks.size()));
}

std::string Routing::LevelName(int level) const {
  return static_cast<size_t>(level) < level_names_.size() ? level_names_[level] : "unmapped keys";
}

std::vector<const Mapping *> Routing::Mappings() const {
  std::vector<const Mapping *> mappings;
  for (const Owner &owner : owners_)
    mappings.insert(mappings.end(), owner.mappings.begin(), owner.mappings.end());
  return mappings;
}

std::vector<std::string> Routing::MappingNames() const {
  std::vector<std::string> names;
  for (const Mapping *mapping : Mappings()) names.push_back(mapping->name);
  return names;
}

Route Routing::Find(int db, Bytes key, Match &match) const {
  Route route;
  if (IsPositionKey(key)) {
    route.kind = Route::kDeclared;
    return route;
  }
  auto takes = [&](size_t pattern) { return Takes(owners_[pattern].databases, db); };
  PatternSet::Owner found = patterns_->FindOwner(key, match, takes);
  if (found.fit == Fit::kNone) {
    found = patterns_->FindOwner(key, match, [&](size_t pattern) { return !takes(pattern); });
    bool const elsewhere = found.fit == Fit::kFits;
    if (elsewhere) route.pattern = found.pattern;
    if (elsewhere || filtered_) route.kind = Route::kNotSelected;
    return route;
  }
  const Owner &owner = owners_[found.pattern];
  route.pattern = found.pattern;
  if (owner.declared) {
    route.kind = Route::kDeclared;
  } else if (owner.mappings.empty()) {
    route.kind = Route::kNotSelected;
  } else if (found.fit == Fit::kFits) {
    route.kind = Route::kMapped;
  } else {
    route.kind = Route::kMisfit;
    route.misfit = match.misfit;
  }
  return route;
}

bool Routing::IsSelected(const Route &route) const {
  if (filtered_) return route.IsOfFamily();
  return route.kind != Route::kNotSelected;
}

int Routing::LevelOf(const Route &route) const {
  return route.IsOfFamily() ? owners_[*route.pattern].level : levels_ - 1;
}

}  // namespace prm
