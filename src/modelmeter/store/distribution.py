"""The schema over many Postgres, with Citus: what grows lies by stream on the workers, the rest on the coordinator.

A stream's chunks and rollups lie on one node together, so that they change together. No code of ours routes anything.
"""

import logging

import psycopg

from modelmeter.errors import WrongSetting
from modelmeter.store.sql import load

log = logging.getLogger(__name__)

DISTRIBUTED = ("chunk", "rollup_1m", "rollup_1h", "rollup_1d", "rollup_partial_1m", "rollup_partial_1h")
"""By stream_id, all in one group of shards. Every other table stays on the coordinator."""

SQL = load("distribution.sql")
_LOCK = 0x6D6D_0001  # that of the migrations


def distribute(conninfo: str, shards: int) -> list[str]:
    """Spread the tables that grow over the nodes, with what is in them; the names of those that were not spread yet.

    `shards` is how many pieces there are to move between nodes; it counts the first time only. The schema must be this
    release's. While a table is moved, nobody else writes to it. WrongSetting says what is missing.
    """
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as connection:
        row = connection.execute(SQL["nodes"]).fetchone() if _has_citus(connection) else None
        if row is None:
            raise WrongSetting(
                "distribute: the extension citus is not in this database; on every node, set shared_preload_libraries "
                "= 'citus', restart, and run CREATE EXTENSION citus in the database; on the coordinator then run "
                "SELECT citus_set_coordinator_host('this host'), citus_add_node('a worker', 5432)"
            )
        if not row[0]:
            raise WrongSetting(
                "distribute: no worker is known; run SELECT citus_add_node('host', 5432) on the coordinator for each, "
                "and SELECT citus_set_coordinator_host('this host') before"
            )
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        connection.execute("SET client_min_messages = warning")
        standing = {name for (name,) in connection.execute(SQL["distributed"])}
        done = []
        with connection.transaction():
            connection.execute("SET LOCAL citus.multi_shard_modify_mode = sequential")
            for (function,) in connection.execute(SQL["functions"]).fetchall():
                connection.execute(SQL["distribute_function"], (function,))
        for table in DISTRIBUTED:
            if table not in standing:
                first = table == DISTRIBUTED[0]
                connection.execute(
                    SQL["distribute_first" if first else "distribute_beside"],
                    (f"modelmeter.{table}", shards if first else f"modelmeter.{DISTRIBUTED[0]}"),
                )
                # What was there before was copied; the copies that stay behind would only take room.
                connection.execute(SQL["drop_what_stayed"], (f"modelmeter.{table}",))
                log.info("distributed %s", table)
                done.append(table)
        return done


def _has_citus(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    return connection.execute(SQL["extension"]).fetchone() is not None
