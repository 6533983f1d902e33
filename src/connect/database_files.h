// Files of ours in the directory of the database: they go with it.
#pragma once

#include "pg/guard.h"
#include "pg/pg.h"

namespace prm {

// The directory, which may not exist. Errors: none.
std::string FilesDirectory();
// The directory, created if it is missing. Errors: those of pg::VirtualFile.
std::string MakeFilesDirectory();

// The names of its files. Errors: 53000.
std::vector<std::string> FileNames();

// Removes one of them. Errors are logged: what is left over does no harm but take room.
void RemoveFile(const std::string &name);

// The number that a name begins with, if its rest is `ending`.
std::optional<int64> NumberIn(const std::string &name, const std::string &ending);

// The prefix of the names of the files of a run's link. link: its number in a cluster, otherwise 0.
std::string LinkName(int64 run_id, int link);
// The run of such a name.
std::optional<int64> RunIn(const std::string &name);

// Removes the files of all runs but these, and what processes that are gone have left.
void RemoveFilesOfOtherRuns(const std::set<int64> &run_ids);

}  // namespace prm
