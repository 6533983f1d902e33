"""The memory of a PostgreSQL session, as the system counts it."""
import threading


class Memory(threading.Thread):
    """Samples, in kB, of the memory of its own, without shared buffers, that a process has while this runs."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.path, self.done, self.samples = "/proc/%d/status" % pid, threading.Event(), []

    def sample(self):
        with open(self.path) as status:
            self.samples += [int(line.split()[1]) for line in status if line.startswith("RssAnon")]

    def run(self):
        while not self.done.wait(0.1):
            self.sample()

    @property
    def highest(self):
        return max(self.samples)

    def __enter__(self):
        self.sample()
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join()
        self.sample()
