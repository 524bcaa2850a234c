"""Alertmanager, API v2. It forgets an alert that it does not hear of again before `endsAt`: so it hears of each
firing one every `resend_interval`, with an end four times as far; and of the resolution, with the end that it had.
"""

import re
from dataclasses import dataclass, field

import msgspec

from modelmeter import __version__
from modelmeter.notification import Alert, Message
from modelmeter.notify.outcome import Outcome
from modelmeter.notify.post import post
from modelmeter.window import MINUTE, to_rfc3339

EVENT_LASTS = 5 * MINUTE
"""How long a one-shot event is an alert there."""
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_]")


def label_name(name: str) -> str:
    """As Alertmanager takes it: `data-center` becomes `data_center`."""
    name = _NOT_IN_A_NAME.sub("_", name)
    return f"_{name}" if name[:1].isdigit() else name


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """`url` is its base, like http://alertmanager:9093. Durations in microseconds."""

    name: str
    url: str = field(repr=False)
    bearer: str = field(default="", repr=False)
    send_resolved: bool = True
    resend_interval: int = MINUTE
    timeout_seconds: float = 15
    external_url: str = ""
    kind: str = "alertmanager"

    def send(self, message: Message, key: str, now: int) -> Outcome:
        body = msgspec.json.encode([self._alert(alert, now) for alert in message.alerts])
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"modelmeter/{__version__}",
            "Idempotency-Key": key,
        }
        if self.bearer:
            headers["Authorization"] = f"Bearer {self.bearer}"
        return post(f"{self.url.rstrip('/')}/api/v2/alerts", body, headers, self.timeout_seconds, [self.bearer])

    def _alert(self, alert: Alert, now: int) -> dict[str, object]:
        if alert.event:
            ends_at = alert.starts_at + EVENT_LASTS
        else:
            # Of now, not of when the message was made: however late it comes, it must not read as resolved.
            ends_at = now + 4 * self.resend_interval if alert.ends_at is None else alert.ends_at
        return {
            "labels": {label_name(name): value for name, value in alert.labels.items() if value},
            "annotations": {label_name(name): value for name, value in alert.annotations.items()},
            "startsAt": to_rfc3339(min(alert.starts_at, ends_at)),
            "endsAt": to_rfc3339(ends_at),
            "generatorURL": self.external_url,
        }
