"""How long a connection to Postgres is believed in when its host falls silent."""

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_DEFAULTS: dict[str, str | int] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Seconds, seconds, probes, milliseconds: a host that is gone without a word is noticed within half a minute."""


def with_timeouts(conninfo: str) -> str:
    """The same with limits that it does not set itself. psycopg.ProgrammingError when it cannot be read.

    libpq has no limit of its own: where a node vanishes, it waits for the kernel, a quarter of an hour.
    """
    given = conninfo_to_dict(conninfo)
    return make_conninfo(conninfo, **{name: value for name, value in _DEFAULTS.items() if name not in given})
