"""The memory of a PostgreSQL session, as the system counts it."""
import glob
import threading


class Memory(threading.Thread):
    """Samples, in kB, of the memory of its own, without shared buffers, that a process has while this runs.
    title: a process whose title contains this counts as well; None: there are no others."""

    def __init__(self, pid, title=None):
        super().__init__(daemon=True)
        self.pid, self.title, self.done, self.samples = pid, title, threading.Event(), []

    def sample(self, pid):
        with open("/proc/%s/status" % pid) as status:
            self.samples += [int(line.split()[1]) for line in status if line.startswith("RssAnon")]

    def sample_others(self):
        for path in glob.glob("/proc/[0-9]*"):
            try:
                with open(path + "/cmdline") as title:
                    if self.title in title.read():
                        self.sample(path.rsplit("/", 1)[1])
            except OSError:  # it has ended
                pass

    def run(self):
        while not self.done.wait(0.1):
            self.sample(self.pid)
            if self.title:
                self.sample_others()

    @property
    def highest(self):
        return max(self.samples)

    def __enter__(self):
        self.sample(self.pid)
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join()
        self.sample(self.pid)
