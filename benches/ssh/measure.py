"""Runs a client and measures it: time on the clock, and processor time of it and of all that it started, daemons too."""
import ctypes
import os
import signal
import subprocess
import time
from dataclasses import dataclass

PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """What was to be done was not done."""


@dataclass
class Cost:
    """Seconds on the clock, and processor seconds: of the client, of the hosts, of what has nothing to do with it."""

    seconds: float
    client: float
    hosts: float
    foreign: float


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def descendants(pid):
    found = children(pid)
    for child in found:
        found.extend(children(child))
    return found


def living(pid):
    """Processor seconds of a process and of those that it has waited for."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICKS


def spent():
    """Processor seconds of all that this process ever started."""
    ended = os.times()
    return ended.children_user + ended.children_system + sum(living(pid) for pid in descendants(os.getpid()))


def beside():
    """Processor seconds of what else runs in this pid namespace: under `hosts run`, the hosts."""
    mine = {os.getpid(), *descendants(os.getpid())}
    return sum(living(int(name)) for name in os.listdir("/proc") if name.isdigit() and int(name) not in mine)


def busy():
    """Processor seconds of the whole machine."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _waiting, interrupts, soft = (int(field) for field in file.readline().split()[1:8])
    return (user + nice + system + interrupts + soft) / TICKS


def reap():
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


class Client:
    """A command with a deadline. What it leaves behind, like shared connections, goes on until `end_all`."""

    def __init__(self, command, environment, log, patience):
        self.command, self.environment, self.log, self.patience = command, environment, log, patience

    def run(self):
        """What it cost. Fails if it did, or did not end in time."""
        # Daemons of it become children of this process, not of the first of the namespace.
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        client, hosts, all_of_it = spent(), beside(), busy()
        begin = time.monotonic()
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                self.command, env=self.environment, cwd=self.log.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                executable=self.executable())
        try:
            code = process.wait(self.patience)
        except subprocess.TimeoutExpired:
            code = f"nothing after {self.patience} s"
            self.end_all()
        seconds = time.monotonic() - begin
        reap()
        if code != 0:
            raise Failed(f"{self.command[0]} ended with {code}; the last it said:\n" + self.last_words())
        client, hosts, all_of_it = spent() - client, beside() - hosts, busy() - all_of_it
        return Cost(seconds, client, hosts, max(0.0, all_of_it - client - hosts))

    def executable(self):
        """Found by the client's own path."""
        for place in self.environment["PATH"].split(":"):
            if os.access(f"{place}/{self.command[0]}", os.X_OK):
                return f"{place}/{self.command[0]}"
        raise Failed(f"there is no {self.command[0]}")

    def last_words(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])

    @staticmethod
    def end_all():
        """Ends what clients left behind."""
        for what in (signal.SIGTERM, signal.SIGKILL):
            for _ in range(50):
                reap()
                left = descendants(os.getpid())
                if not left:
                    return
                for pid in left:
                    try:
                        os.kill(pid, what)
                    except ProcessLookupError:
                        pass
                time.sleep(0.1)
