// The functions of rate limits, none of which PUBLIC may execute.
#pragma once

#include "pg/grant_hint.h"

namespace prm::ratelimit {

#define PRM_BOTH(name, text_form, inet_form) \
  { name, "redis_migrate." name text_form ", redis_migrate." name inet_form }
#define PRM_ONE(name) \
  { name, "redis_migrate." name }

inline constexpr pg::GrantedFunction kGrantedFunctions[] = {
    PRM_BOTH("create_rate_limit",
             "(text, bigint, interval, bigint, text, text, text, integer, boolean, boolean)",
             "(text, text, bigint, text, text, text, integer, boolean, boolean)"),
    PRM_BOTH("rate_limit", "(text, text, bigint)", "(text, inet, bigint)"),
    PRM_BOTH("rate_limit_allowed", "(text, text, bigint)", "(text, inet, bigint)"),
    PRM_BOTH("set_rate_limit_override", "(text, text, bigint, interval, bigint)",
             "(text, inet, bigint, interval, bigint)"),
    PRM_BOTH("drop_rate_limit_override", "(text, text)", "(text, inet)"),
    PRM_BOTH("add_rate_limit_allow", "(text, text)", "(text, inet)"),
    PRM_BOTH("drop_rate_limit_allow", "(text, text)", "(text, inet)"),
    PRM_BOTH("add_rate_limit_deny", "(text, text, interval)", "(text, inet, interval)"),
    PRM_BOTH("drop_rate_limit_deny", "(text, text)", "(text, inet)"),
    PRM_ONE("alter_rate_limit"),
    PRM_ONE("drop_rate_limit"),
    PRM_ONE("rate_limit_at"),
    PRM_ONE("rate_limit_adhoc"),
    PRM_ONE("rate_limits"),
    PRM_ONE("rate_limit_refund"),
    PRM_ONE("reset_rate_limit"),
    PRM_ONE("rate_limit_headers"),
    PRM_ONE("import_rate_limit"),
    PRM_ONE("rate_limit_counters"),
    PRM_ONE("rate_limit_capacity"),
    PRM_ONE("reset_rate_limit_stats"),
    PRM_ONE("save_rate_limits"),
    {nullptr, nullptr}};

#undef PRM_BOTH
#undef PRM_ONE

}  // namespace prm::ratelimit
