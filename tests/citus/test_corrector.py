"""tests/test_corrector.py on Citus."""

import tests.citus.coordinator  # noqa: F401  # without one, all of this is skipped
from tests.test_corrector import *  # noqa: F403
