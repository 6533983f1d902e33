// The functions and procedures of lockouts, none of which PUBLIC may execute.
#pragma once

#include "pg/grant_hint.h"

namespace prm::lockout {

#define PRM_ONE(name) \
  { name, "redis_migrate." name }

inline constexpr pg::GrantedFunction kGrantedFunctions[] = {PRM_ONE("create_lockout"),
                                                            PRM_ONE("alter_lockout"),
                                                            PRM_ONE("drop_lockout"),
                                                            PRM_ONE("login_check"),
                                                            PRM_ONE("login_result"),
                                                            PRM_ONE("lockout_status"),
                                                            PRM_ONE("login_check_at"),
                                                            PRM_ONE("login_result_at"),
                                                            PRM_ONE("lockout_status_at"),
                                                            PRM_ONE("reset_lockout"),
                                                            PRM_ONE("import_lockout"),
                                                            PRM_ONE("reset_lockout_stats"),
                                                            PRM_ONE("attempts_due"),
                                                            PRM_ONE("write_login_attempts"),
                                                            PRM_ONE("lockout_counts"),
                                                            PRM_ONE("login_attempt_queue"),
                                                            PRM_ONE("check_rate_limit"),
                                                            PRM_ONE("log_rate_limit_attempt"),
                                                            PRM_ONE("cleanup_old_rate_limit_attempts"),
                                                            {nullptr, nullptr}};

#undef PRM_ONE

}  // namespace prm::lockout
