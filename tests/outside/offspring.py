"""Models that start threads, processes and daemons, handle signals, and note whom they have started.

Writes model files, hands back the processes that they noted and that live. Knows nothing of servers.
"""

from __future__ import annotations

from pathlib import Path

# A module beside the models' files: what spawned processes import by name.
BESIDE = """
import os
import signal
import subprocess
import time
from pathlib import Path

NOTES = Path({notes!r})
SLEEP = ["/bin/sleep", "1000"]


def note(kind, pid):
    started = Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[19]
    (NOTES / f"{{pid}}.{{started}}").write_text(kind)


def double(x):
    return 2 * x


def wait():
    time.sleep(1000)


def deaf():
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    wait()


def forked(act):
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(1)
    return pid


def daemon():
    '''As daemons do: a session of its own, no parent, no descriptors, no environment, no folder.'''
    read, write = os.pipe()

    def middle():
        os.setsid()
        pid = os.fork()
        if pid == 0:
            os.chdir("/")
            os.closerange(0, 1024)
            os.execve(SLEEP[0], SLEEP, {{}})
        os.write(write, str(pid).encode())
        os._exit(0)

    parent = forked(middle)
    os.close(write)
    pid = int(os.read(read, 100))
    os.close(read)
    os.waitpid(parent, 0)
    note("daemon", pid)


def ended_by(number, pid):
    '''Whether the signal alone ends the child, at once.'''
    os.kill(pid, number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -number
"""

LINGERS = """
import multiprocessing
import os
import signal
import subprocess

import beside
from inferd import Model


class Lingers(Model):
    def load(self):
        start = lambda *command, **how: subprocess.Popen(command or beside.SLEEP, **how).pid
        beside.note("subprocess", start())
        beside.note("session", start(start_new_session=True, env={}))
        beside.note("group", start(process_group=0))
        beside.note("shell", start("sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000 & wait"))
        beside.note("deaf", beside.forked(beside.deaf))
        beside.note("stopped", stopped := start())
        os.kill(stopped, signal.SIGSTOP)
        beside.daemon()
        self.process = multiprocessing.Process(target=beside.wait, daemon=True)
        self.process.start()
        beside.note("multiprocessing", self.process.pid)

    def predict(self, x: list[float]) -> list[float]:
        return [beside.double(one) for one in x]
"""

# Never unlinks it. Not beside a stopped child: as the leader of its group ends, the kernel sends SIGHUP to the others, the
# process that cleans up included.
SHARES = """
import multiprocessing
from multiprocessing.shared_memory import SharedMemory

import beside
from inferd import Model


def double(name, row):
    shared = SharedMemory(name)
    shared.buf.cast("d")[row] *= 2
    shared.close()


class Shares(Model):
    def load(self):
        self.shared = SharedMemory(create=True, size=1 << 16)

    def predict(self, x: list[float]) -> list[float]:
        numbers = self.shared.buf.cast("d")
        for row, one in enumerate(x):
            numbers[row] = one
            process = multiprocessing.Process(target=double, args=(self.shared.name, row))
            process.start()
            process.join(20)
        return [numbers[row] for row in range(len(x))]
"""

POOL = """
import multiprocessing
import signal

import beside
from inferd import Model

context = multiprocessing.get_context({method!r})


class Pools(Model):
    def load(self):
        self.pool = context.Pool(2)
        for process in self.pool._pool:
            beside.note({method!r}, process.pid)

    def predict(self, x: list[float]) -> list[float]:
        process = context.Process(target=beside.wait)
        process.start()
        process.terminate()
        process.join(20)
        assert process.exitcode == -signal.SIGTERM, process.exitcode
        with context.Pool(1) as pool:
            # Its end terminates it.
            one = pool.map(beside.double, x[:1])
        return one + self.pool.map(beside.double, x[1:])
"""

FUTURES = """
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import beside
from inferd import Model


class Futures(Model):
    def load(self):
        self.processes, self.threads = ProcessPoolExecutor(2), ThreadPoolExecutor(2)
        list(self.processes.map(beside.double, [1, 2]))
        for pid in self.processes._processes:
            beside.note("futures", pid)

    def predict(self, x: list[float]) -> list[float]:
        with ProcessPoolExecutor(1) as other:
            assert list(other.map(beside.double, x)) == list(self.threads.map(beside.double, x))
        return list(self.processes.map(beside.double, x))
"""

THREADS = """
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import beside
from inferd import Model


class Threads(Model):
    def load(self):
        # Not a daemon: a script would never end.
        threading.Thread(target=threading.Event().wait).start()
        self.pool = ThreadPoolExecutor(4)

    def started(self, number):
        if number % 2:
            return subprocess.run(["echo", str(number)], check=True, capture_output=True, text=True).stdout.strip()
        assert beside.ended_by(signal.SIGTERM, beside.forked(beside.wait))
        return str(number)

    def predict(self, x: list[float]) -> list[float]:
        assert list(self.pool.map(self.started, range(8))) == [str(number) for number in range(8)]
        return [beside.double(one) for one in x]
"""

SIGNALS = """
import os
import signal
import subprocess
import time

import beside
from inferd import Model


class Signals(Model):
    def load(self):
        self.seen = dict.fromkeys((signal.SIGALRM, signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1), 0)
        for number in self.seen:
            signal.signal(number, self.see)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

    def see(self, number, frame):
        self.seen[number] += 1

    def predict(self, x: list[float]) -> list[float]:
        before = dict(self.seen)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        read = subprocess.run(["sh", "-c", "sleep 0.01; echo $$"], check=True, capture_output=True).stdout
        assert int(read) > 0
        ends = time.monotonic() + 20
        while not all(self.seen[number] > count for number, count in before.items()):
            assert time.monotonic() < ends, (before, self.seen)
        # A child has the model's handler, as it has in a script; what it runs has the default.
        child = subprocess.Popen(beside.SLEEP)
        child.terminate()
        assert child.wait(20) == -signal.SIGTERM
        return [beside.double(one) for one in x]
"""

SUBPROCESSES = """
import os
import signal
import subprocess

import beside
from inferd import Model


class Subprocesses(Model):
    def predict(self, x: list[float]) -> list[float]:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for how in ({}, {"preexec_fn": os.getpid}, {"start_new_session": True}):
                with subprocess.Popen(beside.SLEEP, **how) as child:
                    child.send_signal(number)
                    assert child.wait(20) == -number, (number, how)
            assert beside.ended_by(number, os.posix_spawn(beside.SLEEP[0], beside.SLEEP, {}))
        for number in (signal.SIGTERM, signal.SIGHUP):
            assert beside.ended_by(number, beside.forked(beside.wait)), number
        assert subprocess.getoutput("echo a | cat") == "a"
        return [beside.double(one) for one in x]
"""

ENDS = """
import atexit
import logging

import beside
from inferd import Model


class Ends(Model):
    def load(self):
        self.said = open(beside.NOTES.with_name("said"), "a", buffering=1)
        atexit.register(self.said.write, "atexit\\n")

    def predict(self, x: list[float]) -> list[float]:
        return [beside.double(one) for one in x]

    def close(self):
        self.said.write("close\\n")
"""

METHODS = ("fork", "spawn", "forkserver")
LEFT = {"subprocess", "session", "group", "shell", "deaf", "stopped", "daemon", "multiprocessing", "futures", *METHODS}


class Offspring:
    """A folder of such models.

    Args:
        folder: a new one.
    """

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self._notes = folder / "notes"
        self._said = folder / "said"
        for made in (self.models, self._notes):
            made.mkdir(parents=True)
        texts = {"lingers": LINGERS, "futures": FUTURES, "threads": THREADS, "signals": SIGNALS, "ends": ENDS}
        texts |= {"subprocesses": SUBPROCESSES, "shares": SHARES}
        texts |= {f"pool_{method}": POOL.format(method=method) for method in METHODS}
        self.names = sorted(texts)
        for name, text in texts.items():
            place = self.models / name
            place.mkdir()
            (place / "model.py").write_text(text)
            (place / "beside.py").write_text(BESIDE.format(notes=str(self._notes)))

    def alive(self) -> dict[str, str]:
        """What was noted and has not ended, by pid and start: its kind."""
        found = {}
        for note in self._notes.iterdir():
            pid, started = note.name.split(".")
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] not in "ZX" and fields[19] == started:
                found[note.name] = note.read_text()
        return found

    def said(self) -> list[str]:
        """What the model that ends in order has written while it did."""
        return self._said.read_text().split() if self._said.exists() else []
