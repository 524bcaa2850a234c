"""tests/test_reader.py on Citus."""

import tests.citus.coordinator  # noqa: F401  # without one, all of this is skipped
from tests.test_reader import *  # noqa: F403
