// How many processes read the source of a run side by side.
#pragma once

#include "mapping/routing.h"
#include "run/parts.h"

namespace prm {

// The argument `workers` of run and start; nothing for NULL. Errors: 22023 for less than 1 and more than 64.
std::optional<int> WorkersArgument(FunctionCallInfo fcinfo, int n);

// Why only the session itself can run some mappings, though others could help it; nothing: no such reason.
std::optional<std::string> ReasonToRunAlone(const std::vector<const Mapping *> &mappings);

// How many processes are to read a source: `wanted`, or as many as its size, the cores and the mappings are
// worth, but no more than the source takes.
int CountWorkers(std::optional<int> wanted, const SourceDivision &source,
                 const std::vector<const Mapping *> &mappings);

}  // namespace prm
