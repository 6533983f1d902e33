// Statements that workers have to know of. DROP DATABASE and its like fail while somebody is connected: the
// workers of the database leave before. COMMIT PREPARED may commit what defines work.
#pragma once

namespace prm::worker {

// From _PG_init, while libraries are preloaded.
void InstallUtilityHook();

}  // namespace prm::worker
