"""tests/test_compactor.py on Citus."""

import tests.citus.coordinator  # noqa: F401  # without one, all of this is skipped
from tests.test_compactor import *  # noqa: F403
