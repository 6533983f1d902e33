// The key layouts of well-known frameworks, so that an audit can name whose keys a family has.
#pragma once

#include <string>

#include "discover/family_stats.h"

namespace prm {

struct FrameworkLayout {
  const char* framework;  // "Sidekiq"
  const char* meaning;    // what the keys are
  const char* target;     // what becomes of them in PostgreSQL, and what has to be known for that
};

// The layout of the keys that were counted together; nullptr when none is known. All examples, the type and
// what the values are must agree.
const FrameworkLayout* FindFrameworkLayout(const FamilyStats& stats);

}  // namespace prm
