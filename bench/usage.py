"""CPU seconds and peak memory of a tree of processes, by role, reaped children included."""

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROLES = ("api", "worker", "keeper", "serve", "postgres")
_MODELMETER = ("api", "worker", "keeper", "serve", "migrate")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far, and the most memory so far of the largest process, by role.

    `machine_seconds` is the CPU time that the whole machine was busy, `at` the monotonic clock.
    """

    cpu_seconds: dict[str, float]
    peak_bytes: dict[str, int]
    machine_seconds: float
    at: float

    def since(self, before: "Usage") -> dict[str, float]:
        """CPU seconds by role between `before` and now."""
        return {
            role: max(0.0, seconds - before.cpu_seconds.get(role, 0.0)) for role, seconds in self.cpu_seconds.items()
        }


def read_usage(roots: dict[int, str]) -> Usage:
    """The usage of the processes `roots` (pid: role) and all below them.

    A process that tells no role of its own has that of its parent.
    """
    cpu: dict[str, float] = {}
    peak: dict[str, int] = {}
    for process, role in processes(roots):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds = times.user + times.system + times.children_user + times.children_system
            cpu[role] = cpu.get(role, 0.0) + seconds
            peak[role] = max(peak.get(role, 0), _peak_bytes(process))
    return Usage(cpu, peak, _machine_seconds(), time.monotonic())


def processes(roots: dict[int, str]) -> list[tuple[psutil.Process, str]]:
    """Every process of the trees with its role."""
    found: dict[int, tuple[psutil.Process, str]] = {}
    for pid, role in roots.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            found[pid] = (root, role)
            for process in root.children(recursive=True):
                if process.pid in found or process.pid in roots:
                    continue
                with contextlib.suppress(psutil.NoSuchProcess):
                    parent = found.get(process.ppid(), (root, role))
                    found[process.pid] = (process, _role(process) or parent[1])
    return list(found.values())


def _role(process: psutil.Process) -> str | None:
    if process.name().startswith("postgres"):
        return "postgres"
    words = process.cmdline()
    if any("modelmeter" in word for word in words):
        return next((word for word in words if word in _MODELMETER), None)
    return None


def others_percent(before: Usage, after: Usage, ours_seconds: float) -> float:
    """How much of all cores went to what is neither client nor server, in percent: what spoils a number."""
    others = after.machine_seconds - before.machine_seconds - ours_seconds
    return max(0.0, others) / ((after.at - before.at) * (os.cpu_count() or 1)) * 100


def _machine_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _peak_bytes(process: psutil.Process) -> int:
    """The highest resident memory so far; where the system does not tell it, the present one."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        if found:
            return int(found[1]) * 1024
    return int(process.memory_info().rss)


def disk_bytes(folder: Path) -> int:
    """What the files below `folder` take on disk."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(Path(parent) / name).st_blocks * 512
    return total
