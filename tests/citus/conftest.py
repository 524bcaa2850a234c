"""The tests of a single Postgres, on many: MODELMETER_TEST_CITUS_URL is a coordinator that knows its workers.

The database that it names is emptied for each test, so it should be one of its own.
"""

import os

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from modelmeter.store.distribution import distribute
from modelmeter.store.migrations import migrate


@pytest.fixture
def undistributed_url() -> str:
    """A coordinator with the newest schema, and nothing on the workers yet."""
    # Tests that kill a backend do it by triggers, which Citus calls unsafe: it does not copy them to new nodes.
    url = make_conninfo(os.environ["MODELMETER_TEST_CITUS_URL"], options="-c citus.enable_unsafe_triggers=on")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS modelmeter CASCADE")
        connection.execute("DROP FUNCTION IF EXISTS die() CASCADE")
    migrate(url)
    return url


@pytest.fixture
def database_url(undistributed_url: str) -> str:
    distribute(undistributed_url, shards=4)
    return undistributed_url
