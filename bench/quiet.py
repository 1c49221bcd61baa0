"""Was the machine quiet while something was measured?

A Watch is put around a measurement. It says what share of the machine's cores others used
meanwhile, and how the machine's pace changed. Others are all processes except the
benchmark's, the server's and Kafka's with all their descendants, and except the kernel's own
threads, which write to the disk mostly for us. What a hypervisor takes away (steal) counts as
others. The pace is how fast a fixed piece of work runs, in CPU time; it changes with the
clock of the processor, and with what other virtual machines do to its caches.
"""
import array
import contextlib
import hashlib
import os
import random
import subprocess
import time

TICKS = os.sysconf('SC_CLK_TCK')
DISTURBED = 0.05        # of the machine, or of the pace

_random = random.Random(1)
_numbers = [_random.random() for _ in range(60_000)]
_bytes = bytes(1 << 20)


def pace():
    """How often a second the fixed work would run: hashing, sorting, and copying 16 MB. The best of five."""
    best = float('inf')
    for _ in range(5):
        start = time.thread_time()
        hashlib.sha256(_bytes).digest()
        sorted(_numbers)
        array.array('b', _bytes) * 16
        best = min(best, time.thread_time() - start)
    return 1 / best


def machine_ticks():
    """(user, nice and system; steal) of all cores. Interrupts are left out: nobody knows for whom they were."""
    with open('/proc/stat') as file:
        user, nice, system, _, _, _, _, steal = (int(field) for field in file.readline().split()[1:9])
    return user + nice + system, steal


def processes():
    """Of each process: its parent, and the ticks of itself and of its descendants that have ended."""
    found = {}
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                with open('/proc/%s/stat' % name) as file:
                    fields = file.read().rpartition(')')[2].split()
            except OSError:             # has ended
                continue
            found[int(name)] = int(fields[1]), sum(int(field) for field in fields[11:15])
    return found


def ticks_below(found, roots):
    """The ticks of these processes and all their descendants. A process that ends hands its ticks to its
    parent, so the sum only grows."""
    children = {}
    for pid, (parent, _) in found.items():
        children.setdefault(parent, []).append(pid)
    total, rest = 0, list(roots)
    while rest:
        pid = rest.pop()
        if pid in found:
            total += found[pid][1]
            rest += children.get(pid, ())
    return total


def tree_cpu_seconds(*roots):
    return ticks_below(processes(), roots) / TICKS


def kernel_threads():
    """Their parent, unless a container hides it."""
    try:
        with open('/proc/2/comm') as file:
            return [2] if file.read() == 'kthreadd\n' else []
    except OSError:
        return []


class Watch:
    """with Watch(roots) as watch: ...     then watch.found, for the results."""

    def __init__(self, roots):
        self.roots = [*kernel_threads(), os.getpid(), *roots]

    def read(self):
        busy, steal = machine_ticks()
        return time.monotonic(), busy, steal, ticks_below(processes(), self.roots)

    def __enter__(self):
        self.pace = pace()
        self.before = self.read()
        return self

    def __exit__(self, *_):
        seconds, busy, steal, ours = (after - before for after, before in zip(self.read(), self.before))
        capacity = max(seconds, 0.01) * TICKS * os.cpu_count()
        self.found = {'others': round(max(busy - ours, 0) / capacity, 4), 'steal': round(steal / capacity, 4),
                      'pace': round((self.pace + pace()) / 2, 2)}


def others(stretches):
    """The largest share that others had of the machine during one of these measurements."""
    return max((s['others'] + s['steal'] for s in stretches), default=0)


def pace_change(ours, theirs):
    """How much faster (or slower: < 0) the machine was for us than for those that we are compared with, in the
    run of the greatest difference."""
    changes = [a['pace'] / b['pace'] - 1 for a, b in zip(ours, theirs)]
    return max(changes, key=abs, default=0)


@contextlib.contextmanager
def busy_core(is_wanted):
    """Keeps one core busy meanwhile, if that is wanted."""
    process = subprocess.Popen(['sh', '-c', 'while :; do :; done']) if is_wanted else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()
