"""The dispatcher: notifications become groups, groups tell, and what they tell is delivered at least once.

Three steps, each a transaction of its own: take notifications into groups; ask each group that is due what to tell and
put that into the outbox; send what the outbox holds. Killed anywhere, the next one goes on: what was sent and not yet
recorded is sent again with the same deduplication key.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg

from modelmeter import grouping, telemetry
from modelmeter.config import Config
from modelmeter.courier import Courier, Sent
from modelmeter.grouping import Member, Why, Withheld
from modelmeter.inhibition import Inhibitor
from modelmeter.notification import Alert, Message
from modelmeter.notify.alertmanager import Alertmanager
from modelmeter.notify.current import CurrentNotifications
from modelmeter.notify.file import Notifications
from modelmeter.notify.outcome import Delivered, Destination, Failed
from modelmeter.routing import Route, format_labels
from modelmeter.silence import Silence
from modelmeter.store import deliveries, groups
from modelmeter.store.groups import Place, StoredGroup
from modelmeter.store.silences import SQL as SILENCES_SQL
from modelmeter.store.silences import active_silences
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, to_datetime

log = logging.getLogger(__name__)

Connection = psycopg.Connection[tuple[Any, ...]]

_TAKE = 1000
_GROUPS = 100
_LEASE_MARGIN = 10 * SECOND
_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 300.0
_PLACE_EVERY = MINUTE
_COUNT_EVERY = 5 * SECOND


def delay_seconds(attempts: int, retry_after_seconds: float | None, jitter: float) -> float:
    """How long to wait after so many attempts: doubling from a second to five minutes, less up to a half by `jitter`
    (0 to 1), but never shorter than the destination asks for.
    """
    grown = min(_FIRST_DELAY_SECONDS * 2.0 ** min(attempts - 1, 30), _LONGEST_DELAY_SECONDS)
    return max(grown * (1 - jitter / 2), retry_after_seconds or 0)


class Dispatcher:
    """`run_once` does a step of each; call it again at once while it returns True.

    Two may run at the same time: one of them groups, and a message that one has leased the other leaves alone.
    """

    def __init__(
        self,
        config: Config,
        current: CurrentNotifications | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._current = current or CurrentNotifications(config)
        self._jitter = jitter
        self._courier = Courier()
        self._unrecorded: list[Sent] = []
        self._connection: Connection | None = None
        self._forced = False
        self._place_at = 0
        self._count_at = 0
        self._prune_at = 0

    @property
    def under_way(self) -> int:
        """How many messages are being sent."""
        return self._courier.under_way

    def reload(self) -> None:
        """Have the notifications file read again with the next step, changed or not. May be called from anywhere."""
        self._forced = True

    def pause(self, busy: bool) -> float:
        """Seconds until the next step."""
        return 0.02 if busy else 0.05 if self.under_way else 0.25

    def close(self, seconds: float = 0) -> None:
        """Record what comes back within so many seconds; the rest is sent again by the next one."""
        self._unrecorded += self._courier.drain(seconds)
        try:
            if self._unrecorded:
                self._record(self._connected(), time.time_ns() // 1000)
        except psycopg.Error:
            log.warning("what was sent last could not be recorded; it will be sent again, with the same key")
        if self._connection is not None:
            self._connection.close()

    def run_once(self, now: int | None = None) -> bool:
        """One step at `now` (microseconds; the clock's when None). Whether there may be more to do at once."""
        now = time.time_ns() // 1000 if now is None else now
        forced, self._forced = self._forced, False
        if self._current.refresh(forced=forced):
            self._place_at = 0
        connection = self._connected()
        try:
            recorded = self._record(connection, now)
            busy = self._group(connection, now)
            started = self._send(connection, now)
            self._tidy(connection, now)
        except BaseException:
            connection.close()
            raise
        return busy or recorded or started

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._config.database_url,
                autocommit=True,
                connect_timeout=5,
                application_name="modelmeter dispatcher",
            )
        return self._connection

    # Notifications into groups.

    def _group(self, connection: Connection, now: int) -> bool:
        notifications = self._current.now
        with connection.transaction():
            if not groups.try_lock(connection):
                return False
            if now >= self._place_at or now < self._place_at - _PLACE_EVERY:
                groups.resolve_gone(connection, now)
                self._place(connection, notifications, now)
            taken = groups.take(connection, _TAKE)
            self._put(connection, notifications.route, taken, now)
        if self._place_at <= now:
            self._place_at = now + _PLACE_EVERY
        with connection.transaction():
            flushed = groups.try_lock(connection) and self._flush(connection, notifications, now)
        return len(taken) == _TAKE or flushed

    def _put(self, connection: Connection, route: Route, taken: Sequence[groups.Notification], now: int) -> None:
        """In runs of the same kind, so that the order of an alert's changes is kept."""
        fired: list[tuple[Place, UUID, Alert, int]] = []
        resolved: list[Alert] = []

        def flush() -> None:
            if fired:
                kept, more = self._within_limit(connection, fired)
                groups.put_members(connection, kept)
                groups.truncate(connection, more)
            if resolved:
                groups.resolve(connection, resolved)
            fired.clear()
            resolved.clear()

        seen: dict[str, str] = {}
        for one in taken:
            alert = one.alert
            if seen.get(alert.fingerprint, alert.status) != alert.status:
                flush()
                seen.clear()
            seen[alert.fingerprint] = alert.status
            if alert.ends_at is not None:
                if not one.fires:  # else it fires again by now, or another rule's alert of the same labels does
                    resolved.append(alert)
                continue
            key = groups.event_key(one.transition_id) if alert.event else UUID(hex=alert.fingerprint)
            for place, taking in _places(route, alert.labels):
                fired.append((place, key, alert, grouping.begin(one.at, now, taking.timing).flush_at))
        flush()

    def _within_limit(
        self, connection: Connection, fired: Sequence[tuple[Place, UUID, Alert, int]]
    ) -> tuple[list[tuple[Place, UUID, Alert, int]], Counter[UUID]]:
        """Without the events beyond what a group may hold; how many those are, by group."""
        held: Counter[UUID] = Counter()
        ids = {place.id for place, _, alert, _ in fired if alert.event}
        if ids:
            held.update(groups.count_events(connection, ids))
        kept, more = [], Counter[UUID]()
        for one in fired:
            place, _, alert, _ = one
            if alert.event and held[place.id] >= self._config.notification_limit_alerts:
                more[place.id] += 1
                continue
            held[place.id] += alert.event
            kept.append(one)
        telemetry.NOTIFICATION_EVENTS_TRUNCATED.inc(more.total())
        return kept, more

    def _place(self, connection: Connection, notifications: Notifications, now: int) -> None:
        """Every alert into the groups that the file makes now: at the start, when it changes, and now and then."""
        wanted: dict[str, set[UUID]] = {}
        missing: list[tuple[Place, UUID, Alert, int]] = []
        gone: dict[UUID, list[str]] = {}
        standing = groups.placements(connection)
        present = {(group, member.key) for group, member in standing}
        for group, member in standing:
            if member.key not in wanted:
                wanted[member.key] = set()
                for place, route in _places(notifications.route, member.alert.labels):
                    wanted[member.key].add(place.id)
                    if (place.id, member.key) not in present and member.alert.ends_at is None:
                        at = grouping.begin(member.alert.starts_at, now, route.timing).flush_at
                        missing.append((place, UUID(hex=member.key), member.alert, at))
            if group not in wanted[member.key]:
                gone.setdefault(group, []).append(member.key)
        for alert in groups.unplaced(connection):
            if alert.fingerprint not in wanted:
                for place, route in _places(notifications.route, alert.labels):
                    at = grouping.begin(alert.starts_at, now, route.timing).flush_at
                    missing.append((place, UUID(hex=alert.fingerprint), alert, at))
        if missing:
            groups.put_members(connection, missing)
        if gone:
            groups.displace(connection, gone)

    # Groups tell.

    def _flush(self, connection: Connection, notifications: Notifications, now: int) -> bool:
        due = groups.due(connection, now, _GROUPS)
        if not due:
            return False
        silences = active_silences(connection, now)
        firing = groups.firing_labels(connection) if notifications.inhibit_rules else []
        inhibitor = Inhibitor(notifications.inhibit_rules, firing)
        routes = {route.key: route for route in notifications.route.walk()}
        pending = deliveries.pending_counts(connection)
        for stored, members in due:
            route = routes.get(stored.place.route_key)
            if route is None:
                # Its alerts are placed anew when the file is: until then it waits.
                later = replace(stored.group, flush_at=now + _PLACE_EVERY)
                groups.save(connection, stored, later, members, members, None, stored.truncated)
                continue
            self._flush_one(connection, notifications, stored, members, route, silences, inhibitor, pending, now)
        return len(due) == _GROUPS

    def _flush_one(
        self,
        connection: Connection,
        notifications: Notifications,
        stored: StoredGroup,
        members: Sequence[Member],
        route: Route,
        silences: Iterable[Silence],
        inhibitor: Inhibitor,
        pending: dict[tuple[str, UUID], int],
        now: int,
    ) -> None:
        destinations = notifications.receivers[route.receiver]
        withheld: dict[str, Withheld] = {}
        if now >= stored.group.flush_at:
            muted = route.is_muted(notifications.time_intervals, to_datetime(now))
            withheld = _withheld(members, silences, inhibitor, now, muted=muted)
        decision = grouping.decide(stored.group, members, route.timing, now, withheld)
        for why in withheld.values():
            telemetry.NOTIFICATIONS_WITHHELD.labels(why.value).inc()
        truncated = stored.truncated
        if decision.tell:
            for destination in destinations:
                for message in self._messages(destination, stored, route, decision.why, decision.tell, truncated):
                    self._post(connection, destination, stored.id, message, pending, now)
            truncated = 0
        told = [one for one in decision.members if one.told and one.alert.ends_at is None]
        keepers = [one for one in destinations if isinstance(one, Alertmanager)]
        resend_at = stored.resend_at
        if not told or not keepers:
            resend_at = None
        elif decision.tell:
            resend_at = now + min(one.resend_interval for one in keepers)
        elif resend_at is None or resend_at <= now:
            for destination in keepers:
                if not pending.get((destination.name, stored.id)):
                    alerts = [one.alert for one in told]
                    for message in self._messages(destination, stored, route, Why.KEPT_ALIVE, alerts, 0):
                        self._post(connection, destination, stored.id, message, pending, now)
            resend_at = now + min(one.resend_interval for one in keepers)
        groups.save(connection, stored, decision.group, members, decision.members, resend_at, truncated)

    def _messages(
        self,
        destination: Destination,
        stored: StoredGroup,
        route: Route,
        why: Why,
        tell: Sequence[Alert],
        truncated: int,
    ) -> list[Message]:
        """What one destination is told: Alertmanager all alerts, in pieces; any other as many as a message holds."""
        if not destination.send_resolved:
            if why in (Why.SOME_RESOLVED, Why.ALL_RESOLVED):
                return []
            tell = [alert for alert in tell if alert.ends_at is None]
        limit = self._config.notification_limit_alerts
        pieces = [tuple(tell[at : at + limit]) for at in range(0, len(tell), limit)]
        if not isinstance(destination, Alertmanager):
            truncated += len(tell) - len(pieces[0])
            del pieces[1:]
        return [
            Message(route.receiver, stored.place.group_key, stored.place.labels, piece, why.value, truncated)
            for piece in pieces
        ]

    def _post(
        self,
        connection: Connection,
        destination: Destination,
        group: UUID,
        message: Message,
        pending: dict[tuple[str, UUID], int],
        now: int,
    ) -> None:
        waiting = sum(count for (name, _), count in pending.items() if name == destination.name)
        if waiting >= self._config.notification_limit_pending:
            reason = (
                f"{waiting} messages wait for {destination.name}, the limit (MODELMETER_NOTIFICATION_LIMIT_PENDING)"
            )
            deliveries.refuse(connection, destination.name, destination.kind, message, reason, now)
            telemetry.NOTIFICATIONS_GIVEN_UP.labels(destination.kind).inc()
            log.error("a notification is given up: %s", reason)
            return
        deliveries.put(connection, destination.name, destination.kind, group, message, now)
        pending[destination.name, group] = pending.get((destination.name, group), 0) + 1

    # Messages go out.

    def _send(self, connection: Connection, now: int) -> bool:
        known = self._current.now.destinations()
        started = False
        for name in deliveries.due_destinations(connection, now):
            destination = known.get(name)
            room = self._courier.room(name)
            if destination is None or not room:
                continue
            lease = 2 * int(getattr(destination, "timeout_seconds", self._config.notification_timeout_seconds) * SECOND)
            for delivery in deliveries.claim(connection, name, now, now + lease + _LEASE_MARGIN, room):
                if not self._courier.holds(
                    delivery.id
                ):  # else it hangs beyond its lease, and is not sent beside itself
                    self._courier.start(delivery, destination, now)
                    started = True
        return started

    def _record(self, connection: Connection, now: int) -> bool:
        self._unrecorded += self._courier.outcomes()
        some = bool(self._unrecorded)
        if some:
            with connection.transaction():  # one commit for all: a commit costs more than the rest
                for sent in self._unrecorded:
                    if isinstance(sent.outcome, Delivered):
                        self._record_delivered(connection, sent, now)
                    else:
                        self._record_failed(connection, sent, sent.outcome, now)
            self._unrecorded.clear()
        return some

    def _record_delivered(self, connection: Connection, sent: Sent, now: int) -> None:
        delivery = sent.delivery
        if delivery.why == Why.KEPT_ALIVE.value:
            deliveries.forget(connection, delivery.id)
        elif deliveries.finish(connection, delivery.id, "delivered", "", now):
            telemetry.NOTIFICATIONS_SENT.labels(delivery.kind).inc()
            telemetry.NOTIFICATION_SECONDS.labels(delivery.kind).observe(max(now - delivery.created_at, 0) / SECOND)

    def _record_failed(self, connection: Connection, sent: Sent, failed: Failed, now: int) -> None:
        delivery = sent.delivery
        telemetry.NOTIFICATIONS_FAILED.labels(delivery.kind).inc()
        gives_up_at = delivery.created_at + int(self._config.notification_give_up_seconds * SECOND)
        if failed.permanent or now >= gives_up_at:
            self._give_up(connection, delivery.id, delivery.kind, delivery.destination, failed.reason, now)
            return
        wait = int(delay_seconds(delivery.attempts, failed.retry_after_seconds, self._jitter()) * SECOND)
        deliveries.delay(connection, delivery, min(now + wait, max(gives_up_at, now + SECOND)), failed.reason)
        log.warning("%s: not delivered, tried again in %.1f s: %s", delivery.destination, wait / SECOND, failed.reason)

    def _give_up(self, connection: Connection, delivery_id: int, kind: str, name: str, reason: str, now: int) -> None:
        if deliveries.finish(connection, delivery_id, "given up", reason, now):
            telemetry.NOTIFICATIONS_GIVEN_UP.labels(kind).inc()
            log.error("%s: a notification is given up: %s", name, reason)

    def _tidy(self, connection: Connection, now: int) -> None:
        if now >= self._count_at or now < self._count_at - _COUNT_EVERY:
            self._count_at = now + _COUNT_EVERY
            kinds = Counter({one.kind: 0 for one in self._current.now.destinations().values()})
            for _, kind, pending, _, _ in connection.execute(deliveries.SQL["by_destination"]):
                kinds[kind] += pending
            for kind, count in kinds.items():
                telemetry.NOTIFICATIONS_PENDING.labels(kind).set(count)
            before = now - int(self._config.notification_give_up_seconds * SECOND)
            for delivery_id, kind in deliveries.orphans(connection, [*self._current.now.destinations()], before):
                self._give_up(
                    connection, delivery_id, kind, kind, "the notifications file has no such destination", now
                )
        if now >= self._prune_at or now < self._prune_at - HOUR:
            self._prune_at = now + HOUR
            before = now - int(self._config.notification_history_days * DAY)
            deliveries.prune(connection, before, self._config.notification_history_limit)
            connection.execute(SILENCES_SQL["prune"], {"before": to_datetime(before)})


def _places(route: Route, labels: Any) -> list[tuple[Place, Route]]:
    """The groups that an alert with these labels belongs to, each with its route."""
    found = []
    for taking in route.match(labels):
        own = taking.group_labels(labels)
        found.append((Place(f"{taking.key}:{format_labels(own)}", taking.key, own), taking))
    return found


def _withheld(
    members: Sequence[Member], silences: Iterable[Silence], inhibitor: Inhibitor, now: int, *, muted: bool
) -> dict[str, Withheld]:
    if muted:
        return {one.key: Withheld.MUTED for one in members}
    found = {}
    silences = list(silences)
    for one in members:
        if inhibitor.inhibits(one.alert.labels):
            found[one.key] = Withheld.INHIBITED
        elif any(silence.silences(one.alert.labels, now) for silence in silences):
            found[one.key] = Withheld.SILENCED
    return found
