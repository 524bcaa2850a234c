"""tests/test_series.py on Citus."""

import tests.citus.coordinator  # noqa: F401  # without one, all of this is skipped
from tests.test_series import *  # noqa: F403
