// The key layouts of well-known frameworks, so that an audit can name the framework of a family.
#pragma once

#include <string>

#include "discover/family_stats.h"

namespace prm {

struct FrameworkLayout {
  const char* framework;  // "Sidekiq"
  const char* meaning;    // what the keys are
  const char* target;     // their counterpart in PostgreSQL, and what to know for it
};

// The layout of keys that were counted together; nullptr if none is known. All examples, the type and the
// kinds of values must agree.
const FrameworkLayout* FindFrameworkLayout(const FamilyStats& stats);

}  // namespace prm
