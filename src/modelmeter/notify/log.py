"""ALERT lines on standard output: of event rules, a bounded number a second for each, then one line with how many more;
and of the alerts that the dispatcher tells.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from modelmeter import telemetry
from modelmeter.batch import Batch
from modelmeter.event_alert import Found
from modelmeter.notification import Message
from modelmeter.notify.outcome import Delivered, Outcome
from modelmeter.rule import EventRule, event_fields


class AlertLog:
    """Writes what event rules find in committed events."""

    def __init__(
        self,
        rules: Sequence[EventRule],
        lines_per_second: int,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._limit = lines_per_second
        self._out = out or sys.stdout
        self._clock = clock
        self._second = [0.0] * len(rules)
        self._written = [0] * len(rules)
        self._more = [0] * len(rules)

    def use(self, rules: Sequence[EventRule]) -> None:
        """Other rules from now on; what was left unsaid of the old ones is said."""
        for number in range(len(self._rules)):
            self._say_more(number)
        self._out.flush()
        self._rules = rules
        self._second = [0.0] * len(rules)
        self._written = [0] * len(rules)
        self._more = [0] * len(rules)

    def tell(self, found: Sequence[Found]) -> None:
        """Lines of what these rules found in events that are committed."""
        for one in found:
            self._write(one.number, self._rules[one.number], one.batch, one.rows)
        self.flush()

    def _write(self, number: int, rule: EventRule, batch: Batch, rows: Sequence[int]) -> None:
        now = self._clock()
        if now - self._second[number] >= 1:
            self._say_more(number)
            self._second[number], self._written[number] = now, 0
        room = max(self._limit - self._written[number], 0)
        for row in rows[:room]:
            self._out.write(f"ALERT {rule.words}, {event_fields(batch, row)}\n")
        self._written[number] += min(room, len(rows))
        self._more[number] += max(len(rows) - room, 0)

    def flush(self) -> None:
        """Say how many lines were left out, once their second is over."""
        now = self._clock()
        for number in range(len(self._rules)):
            if now - self._second[number] >= 1:
                self._say_more(number)
        self._out.flush()

    def _say_more(self, number: int) -> None:
        if self._more[number]:
            telemetry.ALERT_LINES_SUPPRESSED.labels(self._rules[number].name).inc(self._more[number])
            self._out.write(f"ALERT {self._rules[number].words}, {self._more[number]} more\n")
            self._more[number] = 0


@dataclass(frozen=True, slots=True)
class Log:
    """The log as a destination: a line for each alert. Events have theirs already, from the worker that stored them."""

    name: str
    send_resolved: bool = True
    out: TextIO | None = None
    kind: str = "log"

    def send(self, message: Message, key: str, now: int) -> Outcome:  # noqa: ARG002
        out = self.out or sys.stdout
        for alert in message.alerts:
            if not alert.event:
                labels = {name: value for name, value in alert.labels.items() if name != "alertname"}
                value = "" if alert.value is None else f", value {alert.value!r}"
                words = f": {alert.annotations['summary']!r}" if "summary" in alert.annotations else ""
                out.write(f"ALERT {' '.join(alert.name.split())} {alert.status}, {labels}{value}{words} ({key})\n")
        out.flush()
        return Delivered()
