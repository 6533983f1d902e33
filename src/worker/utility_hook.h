// Utility statements that concern workers. DROP DATABASE and the like fail while somebody is connected, so
// the workers of the database end first. COMMIT PREPARED may commit changes that define work.
#pragma once

namespace prm::worker {

// From _PG_init, while libraries are preloaded.
void InstallUtilityHook();

}  // namespace prm::worker
