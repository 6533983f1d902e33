// DROP DATABASE and its like fail while somebody is connected: the workers of the database leave before.
#pragma once

namespace prm::worker {

// From _PG_init, while libraries are preloaded.
void InstallDropDatabaseHook();

}  // namespace prm::worker
