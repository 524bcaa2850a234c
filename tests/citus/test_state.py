"""tests/test_state.py on Citus."""

import tests.citus.coordinator  # noqa: F401  # without one, all of this is skipped
from tests.test_state import *  # noqa: F403
