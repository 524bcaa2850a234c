"""Invariant 1 on a full disk: nothing is acknowledged that is not kept, and all goes on when there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.load import Load, audit
from tests.acceptance.yard import Yard, ask, is_ready, until

SIZE_MEBIBYTES = 160


@pytest.fixture
def disk(yard: Yard) -> Iterator[Path]:
    """A small file system of its own."""
    place = yard.home / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MEBIBYTES}m,mode=755", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield place
    finally:
        yard.stop()
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(ballast: Path) -> None:
    """Until nothing more fits."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def test_a_full_disk_refuses_loses_nothing_and_recovers_by_itself(yard: Yard, disk: Path) -> None:
    dice = yard.chance()
    yard.data_dir = disk / "data"
    serve = yard.serve(compact_interval_seconds=1)
    until(lambda: is_ready(serve.url), "serve is ready")
    ballast = disk / "ballast"
    with Load([serve.url], yard.seed, most=2000, rest_seconds=0.005) as load:
        for _ in range(2):
            until(lambda: load.requests > 20, "some load")
            refused = load.statuses.get(503, 0)

            def is_full(refused: int = refused) -> bool:
                fill(ballast)  # what Postgres frees is taken again
                return load.statuses.get(503, 0) > refused + 30

            until(is_full, "requests are refused")
            ballast.unlink()
            before = load.count
            until(lambda before=before: load.count > before + 2000, "it goes on by itself")  # type: ignore[misc]
        assert serve.code is None
        events = load.finish()
    assert set(load.statuses) <= {202, 429, 503}, load.statuses
    until(lambda: ask(yard.conninfo, "SELECT count(*) FROM modelmeter.queue") == 0, "the queue is empty")
    assert ask(yard.conninfo, "SELECT count(*) FROM modelmeter.dead_letter") == 0
    audit(serve.url, events, dice, spans=3)
