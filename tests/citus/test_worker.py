"""tests/test_worker.py on Citus."""

import tests.citus.coordinator  # noqa: F401  # without one, all of this is skipped
from tests.test_worker import *  # noqa: F403
from tests.test_worker import test_a_partition_dropped_beneath_a_worker_loses_nothing

# Citus says of it another error than Postgres does, after which the worker's loop tries again: test_distribution.py.
del test_a_partition_dropped_beneath_a_worker_loses_nothing
