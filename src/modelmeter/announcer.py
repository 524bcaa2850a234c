"""The announcer: event rules judge what a worker stores, once; lines and notifications come of it.

Notifications are rows in the transaction that stores the events, so that there is one of each event, or none of
either. Lines come after the commit. Both are bounded, a rule, by so many a second.
"""

import time
from collections.abc import Callable, Sequence

from modelmeter import telemetry
from modelmeter.batch import Batch
from modelmeter.config import Config
from modelmeter.event_alert import EventAlert, Found, event_alert, find
from modelmeter.notify.log import AlertLog
from modelmeter.rule import EventRule
from modelmeter.store.event_alerts import Connection, write_event_alerts


class Announcer:
    """`judge` in the transaction, `tell` after its commit; of one that is rolled back nothing is told or counted."""

    def __init__(
        self,
        config: Config,
        rules: Sequence[EventRule],
        log: AlertLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_notifying = config.notifications is not None
        self._limit = config.alert_lines_per_second
        self._most = config.notification_limit_pending
        self._log = log or AlertLog(rules, config.alert_lines_per_second)
        self._clock = clock
        self._rules = rules
        self._second = [0.0] * len(rules)
        self._written = [0] * len(rules)
        self._found: list[Found] = []
        self._taken: list[int] = []
        self._left_out: list[int] = []

    def use(self, rules: Sequence[EventRule]) -> None:
        """Other rules from the next transaction on."""
        self._log.use(rules)
        self._rules = rules
        self._second = [0.0] * len(rules)
        self._written = [0] * len(rules)

    def judge(self, connection: Connection, batches: Sequence[Batch]) -> None:
        """Judge every event by every rule, and write what is to be told of it."""
        self._found = find(self._rules, batches)
        self._taken, self._left_out = [0] * len(self._rules), [0] * len(self._rules)
        if not self._is_notifying or not self._found:
            return
        alerts: list[EventAlert] = []
        numbers: list[int] = []
        for one in self._found:
            rule = self._rules[one.number]
            rows = one.rows[: self._room(one.number) - self._taken[one.number]]
            alerts += [event_alert(rule, one.batch, row) for row in rows]
            numbers += [one.number] * len(rows)
            self._taken[one.number] += len(rows)
            self._left_out[one.number] += len(one.rows) - len(rows)
        if alerts:
            written = write_event_alerts(connection, alerts, self._most)
            for number in numbers[written:]:
                self._left_out[number] += 1

    def tell(self, _batches: Sequence[Batch] = ()) -> None:
        """What was judged last is committed: write its lines."""
        now = self._clock()
        for number, count in enumerate(self._taken):
            if count and now - self._second[number] >= 1:
                self._second[number], self._written[number] = now, 0
            self._written[number] += count
        for number, count in enumerate(self._left_out):
            if count:
                telemetry.EVENT_NOTIFICATIONS_SUPPRESSED.labels(self._rules[number].name).inc(count)
        found, self._found, self._taken, self._left_out = self._found, [], [], []
        self._log.tell(found)

    def flush(self) -> None:
        """Say how many lines were left out, once their second is over."""
        self._log.flush()

    def _room(self, number: int) -> int:
        """How many more notifications this rule has within its second."""
        if self._clock() - self._second[number] >= 1:
            return self._limit
        return max(self._limit - self._written[number], 0)
