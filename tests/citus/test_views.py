"""tests/store/test_views.py on Citus."""

import tests.citus.coordinator  # noqa: F401  # without one, all of this is skipped
from tests.store.test_views import *  # noqa: F403
from tests.store.test_views import test_the_role_in_the_page_reads_the_views_and_nothing_else

# On the workers, a role needs the rights of the tables behind the views: see test_citus.py.
del test_the_role_in_the_page_reads_the_views_and_nothing_else
