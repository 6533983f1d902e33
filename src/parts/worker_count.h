// How many processes read a source side by side.
#pragma once

#include "connect/source_division.h"
#include "mapping/routing.h"

namespace prm {

// The argument `workers` of run, start and verify; nothing for NULL. Errors: 22023 for less than 1 and more
// than 64.
std::optional<int> WorkersArgument(FunctionCallInfo fcinfo, int n);

// Why only this session can run some of the mappings; nothing if other processes can help.
std::optional<std::string> ReasonToRunAlone(const std::vector<const Mapping *> &mappings);

// The number of processes that are to read a source: `wanted`, or a number that suits its size, the cores and
// the mappings, but no more than the source allows.
int CountWorkers(std::optional<int> wanted, const SourceDivision &source,
                 const std::vector<const Mapping *> &mappings);

}  // namespace prm
