"""Imported by Python at its start when this directory is on the path: a wall clock that the test can set.

The file named by MODELMETER_TEST_CLOCK holds the seconds by which the clock is wrong.
"""

import os
import time
from pathlib import Path

_true_time_ns = time.time_ns
_offset = Path(os.environ["MODELMETER_TEST_CLOCK"])


def _time_ns() -> int:
    return _true_time_ns() + int(_offset.read_text() or 0) * 1_000_000_000


time.time_ns = _time_ns
time.time = lambda: _time_ns() / 1e9
