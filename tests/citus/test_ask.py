"""tests/test_ask.py on Citus."""

import tests.citus.coordinator  # noqa: F401  # without one, all of this is skipped
from tests.test_ask import *  # noqa: F403
