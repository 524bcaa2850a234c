"""Groups of alerts in Postgres: taking notifications, placing alerts, and what groups remember between two looks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from modelmeter.errors import Unavailable
from modelmeter.event_alert import REASON
from modelmeter.grouping import Group, Member
from modelmeter.notification import Alert
from modelmeter.store.sql import load
from modelmeter.window import to_datetime, to_micros

SQL = load("groups.sql")
_LOCK = 0x6D6D_0022  # an advisory lock: one dispatcher at a time groups

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Notification:
    """A change of an alert that was taken. `fires`: it fires now. `is_over`: it is resolved again by a later one."""

    transition_id: int
    at: int
    alert: Alert
    fires: bool
    is_over: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A group as an alert's route makes it."""

    group_key: str
    route_key: str
    labels: Mapping[str, str]

    @property
    def id(self) -> UUID:
        return UUID(bytes=blake2b(self.group_key.encode(), digest_size=16).digest())


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A group that is due. `resend_at` None: nobody forgets what it told."""

    id: UUID
    place: Place
    group: Group
    resend_at: int | None
    truncated: int


def _micros(instant: Any) -> int | None:
    return None if instant is None else to_micros(instant)


def _instant(micros: int | None) -> Any:
    return None if micros is None else to_datetime(micros)


def event_key(transition_id: int) -> UUID:
    """An event's own key: two events of the same labels are two."""
    return UUID(bytes=blake2b(f"event {transition_id}".encode(), digest_size=16).digest())


def try_lock(connection: Connection) -> bool:
    """Whether this transaction may group. Held until it ends."""
    return connection.execute(SQL["lock"], {"key": _LOCK}).fetchone() == (True,)


def take(connection: Connection, limit: int) -> list[Notification]:
    """The oldest notifications, out of their table."""
    found = []
    for row in connection.execute(SQL["take"], {"limit": limit}):
        transition_id, at, status, fingerprint, labels, annotations, value, reason, starts_at, ends_at = row[:10]
        fires, is_over = row[10:]
        alert = Alert(
            fingerprint.hex, labels, annotations, value, reason, to_micros(starts_at), _micros(ends_at),
            event=reason == REASON or (status == "firing" and not fires and not is_over),
        )  # fmt: skip
        found.append(Notification(transition_id, to_micros(at), alert, fires, is_over))
    return found


def put_members(connection: Connection, placed: Sequence[tuple[Place, UUID, Alert, int]]) -> None:
    """Alerts that fire into their groups, each with its own key, and when a group that is new is to be looked at."""
    with connection.cursor() as cursor:
        cursor.executemany(
            SQL["put_group"],
            [
                {
                    "group": place.id,
                    "key": place.group_key,
                    "route": place.route_key,
                    "labels": Jsonb(dict(place.labels)),
                    "flush_at": to_datetime(flush_at),
                }
                for place, _, _, flush_at in placed
            ],
        )
        cursor.executemany(
            SQL["put_member"],
            [
                {
                    "group": place.id,
                    "member": key,
                    "fingerprint": UUID(hex=alert.fingerprint),
                    "labels": Jsonb(dict(alert.labels)),
                    "annotations": Jsonb(dict(alert.annotations)),
                    "value": alert.value,
                    "reason": alert.reason,
                    "starts_at": to_datetime(alert.starts_at),
                    "event": alert.event,
                }
                for place, key, alert, _ in placed
            ],
        )


def resolve(connection: Connection, alerts: Iterable[Alert]) -> None:
    """These ended, in whatever groups they are."""
    with connection.cursor() as cursor:
        cursor.executemany(
            SQL["resolve_member"],
            [
                {
                    "fingerprint": UUID(hex=alert.fingerprint),
                    "ends_at": _instant(alert.ends_at),
                    "annotations": Jsonb(dict(alert.annotations)),
                    "value": alert.value,
                    "reason": alert.reason,
                }
                for alert in alerts
            ],
        )


def count_events(connection: Connection, groups: Iterable[UUID]) -> dict[UUID, int]:
    return dict(connection.execute(SQL["count_events"], {"groups": [*groups]}).fetchall())


def truncate(connection: Connection, more: Mapping[UUID, int]) -> None:
    """So many events of these groups are only counted."""
    with connection.cursor() as cursor:
        cursor.executemany(SQL["truncate_group"], [{"group": group, "more": count} for group, count in more.items()])


def _member(row: Sequence[Any]) -> Member:
    key, fingerprint, labels, annotations, value, reason, starts_at, ends_at, event, told = row
    alert = Alert(
        fingerprint.hex, labels, annotations, value, reason, to_micros(starts_at), _micros(ends_at), event=event
    )
    return Member(key.hex, alert, told)


def due(connection: Connection, now: int, limit: int) -> list[tuple[StoredGroup, list[Member]]]:
    """Groups to look at, locked, with their alerts as they stand."""
    groups = [
        StoredGroup(row[0], Place(*row[1:4]), Group(to_micros(row[4]), _micros(row[5])), _micros(row[6]), row[7])
        for row in connection.execute(SQL["due"], {"now": to_datetime(now), "limit": limit})
    ]
    members: dict[UUID, list[Member]] = {one.id: [] for one in groups}
    if groups:
        for row in connection.execute(SQL["members"], {"groups": [*members]}):
            members[row[0]].append(_member(row[1:]))
    return [(one, members[one.id]) for one in groups]


def save(
    connection: Connection,
    stored: StoredGroup,
    group: Group,
    before: Sequence[Member],
    after: Sequence[Member],
    resend_at: int | None,
    truncated: int,
) -> None:
    """What a group remembers until the next look; one without alerts is over."""
    if not after:
        connection.execute(SQL["drop_group"], {"group": stored.id})
        return
    left = {one.key for one in after}
    gone = [one.key for one in before if one.key not in left]
    told_before = {one.key for one in before if one.told}
    told = [one.key for one in after if one.told and one.key not in told_before]
    for name, keys in (("drop_members", gone), ("tell_members", told)):
        if keys:
            connection.execute(SQL[name], {"group": stored.id, "members": [UUID(hex=key) for key in keys]})
    connection.execute(
        SQL["save_group"],
        {
            "group": stored.id,
            "flush_at": to_datetime(group.flush_at),
            "told_at": _instant(group.told_at),
            "resend_at": _instant(resend_at),
            "truncated": truncated,
        },
    )


def resolve_gone(connection: Connection, now: int) -> int:
    """Mark alerts resolved whose row went without a notification; how many."""
    return connection.execute(SQL["resolve_gone"], {"now": to_datetime(now)}).rowcount


def placements(connection: Connection) -> list[tuple[UUID, Member]]:
    """Every alert and the group that it is in."""
    return [(row[0], _member(row[1:])) for row in connection.execute(SQL["placements"])]


def unplaced(connection: Connection) -> list[Alert]:
    """The alerts that fire, but for those of which a notification waits."""
    return [
        Alert(row[0].hex, row[1], row[2], row[3], row[4], to_micros(row[5]))
        for row in connection.execute(SQL["unplaced"])
    ]


def displace(connection: Connection, members: Mapping[UUID, Sequence[str]]) -> None:
    """Take these out of their groups."""
    for group, keys in members.items():
        connection.execute(SQL["drop_members"], {"group": group, "members": [UUID(hex=key) for key in keys]})
    connection.execute(SQL["drop_empty_groups"])


def firing_labels(connection: Connection) -> list[dict[str, str]]:
    return [labels for (labels,) in connection.execute(SQL["firing"])]


def read_firing(conninfo: str) -> list[tuple[Alert, int]]:
    """The alerts that fire, each with when it was evaluated last. Unavailable when the database is away."""
    try:
        with psycopg.connect(conninfo, connect_timeout=5, application_name="modelmeter alerts") as connection:
            return [
                (Alert(row[0].hex, row[1], row[2], row[3], row[4], to_micros(row[5])), to_micros(row[6]))
                for row in connection.execute(SQL["alerts"])
            ]
    except psycopg.OperationalError as error:
        raise Unavailable(f"the database is away: {str(error).strip()}") from None
