"""Connections notice a host that is gone, and what the user says of it goes first."""

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from modelmeter.store.conninfo import with_timeouts


@pytest.mark.parametrize(
    "given", ["postgresql://me:a%20word@db.example:6543/stats?sslmode=require", "dbname=stats", ""]
)
def test_limits_are_added_and_nothing_is_changed(given: str) -> None:
    found = conninfo_to_dict(with_timeouts(given))
    assert int(str(found["tcp_user_timeout"])) == 20_000
    assert int(str(found["keepalives_idle"])) == 10
    assert conninfo_to_dict(given).items() <= found.items()


def test_what_is_given_stays() -> None:
    found = conninfo_to_dict(with_timeouts("postgresql://db/stats?tcp_user_timeout=7&keepalives_idle=0"))
    assert (found["tcp_user_timeout"], found["keepalives_idle"]) == ("7", "0")


def test_a_connection_has_them(database_url: str) -> None:
    with psycopg.connect(with_timeouts(database_url)) as connection:
        assert connection.info.get_parameters()["tcp_user_timeout"] == "20000"


def test_what_is_no_conninfo_is_refused() -> None:
    with pytest.raises(psycopg.ProgrammingError):
        with_timeouts("not a conninfo")
