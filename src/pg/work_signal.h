// Lets code below src/worker signal that there is work.
#pragma once

namespace prm::pg {

// Makes the scheduler of this database check at once whether a worker is needed. nullptr if the library was
// not preloaded. Raises no errors; takes the lock of the workers' shared memory.
extern void (*signal_work)();

// Makes the launcher check whether shared memory has to be saved. nullptr, errors and lock as above.
extern void (*signal_save)();

}  // namespace prm::pg
