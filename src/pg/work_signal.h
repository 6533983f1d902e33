// How code below src/worker says that there is work.
#pragma once

namespace prm::pg {

// Makes the scheduler of this database look whether a worker is wanted, at once. nullptr where nobody would:
// the library was not preloaded. Raises no errors; takes the lock of the workers' shared memory.
extern void (*signal_work)();

// Makes the launcher look whether something in shared memory is to be saved. nullptr, errors and lock as
// above.
extern void (*signal_save)();

}  // namespace prm::pg
