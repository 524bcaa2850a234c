"""What the machine tells: processes, and memory."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MEBIBYTE = 1024 * 1024
LINUX = sys.platform == "linux"


def processes() -> Iterator[tuple[int, int, str]]:
    """Pid, uid and command line of every process that can be seen."""
    if LINUX:  # small images have no ps
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    yield int(entry.name), entry.stat().st_uid, command.decode(errors="replace").strip()
        return
    listing = subprocess.run(
        ["ps", "-axww", "-o", "pid=,uid=,command="],
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
    )
    for line in listing.stdout.splitlines():
        fields = line.split(maxsplit=2)
        yield int(fields[0]), int(fields[1]), fields[2] if len(fields) > 2 else ""


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def memory_bytes() -> int:
    """What this machine, or the container's limit, gives us."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            sizes.append(int(Path(limit).read_text()))
    return min(sizes)


def shared_buffers_mebibytes(memory_bytes: int) -> int:
    return max(16, min(256, memory_bytes // MEBIBYTE // 8))
