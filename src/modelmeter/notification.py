"""What is told: alerts, and the message about some of them that one group sends to one receiver.

The payload is that of Alertmanager's webhook, version 4, with fields of ours beside: what a destination makes of it is
made when it is sent, so that nothing of a destination, such as a secret, is ever stored.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelmeter.window import rfc3339_to_micros, to_rfc3339

Labels = Mapping[str, str]
_NEVER = "0001-01-01T00:00:00Z"  # as Go writes a time that is not there


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert in a message. Times are microseconds; `ends_at` None: it fires.

    An `event` alert is one event that a rule found: it is told once and never resolves.
    """

    fingerprint: str
    labels: Labels
    annotations: Labels
    value: float | None
    reason: str
    starts_at: int
    ends_at: int | None = None
    event: bool = False

    @property
    def status(self) -> str:
        return "firing" if self.ends_at is None else "resolved"

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "")


@dataclass(frozen=True, slots=True)
class Message:
    """Alerts of one group for one receiver; `truncated` more of them are left out. `why` names the decision."""

    receiver: str
    group_key: str
    group_labels: Labels
    alerts: tuple[Alert, ...]
    why: str
    truncated: int = 0

    @property
    def status(self) -> str:
        return "firing" if any(alert.ends_at is None for alert in self.alerts) else "resolved"

    @property
    def firing(self) -> tuple[Alert, ...]:
        return tuple(alert for alert in self.alerts if alert.ends_at is None)

    @property
    def resolved(self) -> tuple[Alert, ...]:
        return tuple(alert for alert in self.alerts if alert.ends_at is not None)


def common(maps: Sequence[Labels]) -> dict[str, str]:
    """What all of these say alike."""
    first, *others = maps or [{}]
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def payload(message: Message, external_url: str = "") -> dict[str, Any]:
    """The message as Alertmanager's webhook has it, with `value`, `reason` and `event` of each alert beside."""
    return {
        "version": "4",
        "groupKey": message.group_key,
        "truncatedAlerts": message.truncated,
        "status": message.status,
        "receiver": message.receiver,
        "groupLabels": dict(message.group_labels),
        "commonLabels": common([alert.labels for alert in message.alerts]),
        "commonAnnotations": common([alert.annotations for alert in message.alerts]),
        "externalURL": external_url,
        "why": message.why,
        "alerts": [
            {
                "status": alert.status,
                "labels": dict(alert.labels),
                "annotations": dict(alert.annotations),
                "startsAt": to_rfc3339(alert.starts_at),
                "endsAt": _NEVER if alert.ends_at is None else to_rfc3339(alert.ends_at),
                "generatorURL": external_url,
                "fingerprint": alert.fingerprint,
                "value": alert.value if alert.value is not None and math.isfinite(alert.value) else None,
                "reason": alert.reason,
                "event": alert.event,
            }
            for alert in message.alerts
        ],
    }


def message_of(found: Mapping[str, Any]) -> Message:
    """The message that a payload was made of."""
    return Message(
        found["receiver"],
        found["groupKey"],
        found["groupLabels"],
        tuple(
            Alert(
                one["fingerprint"],
                one["labels"],
                one["annotations"],
                one["value"],
                one["reason"],
                rfc3339_to_micros(one["startsAt"]),
                None if one["endsAt"] == _NEVER else rfc3339_to_micros(one["endsAt"]),
                one["event"],
            )
            for one in found["alerts"]
        ),
        found["why"],
        found["truncatedAlerts"],
    )


def title(message: Message) -> str:
    """One line: `FIRING 2, resolved 1: DriftHigh (name=Mistral)`."""
    parts = [
        f"{word} {len(some)}" for word, some in (("FIRING", message.firing), ("resolved", message.resolved)) if some
    ]
    names = sorted({alert.name for alert in message.alerts})
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    shared = common([alert.labels for alert in message.alerts])
    labels = ", ".join(f"{key}={shared[key]}" for key in ("name", "version", "severity") if key in shared)
    return f"{', '.join(parts)}: {shown}" + (f" ({labels})" if labels else "")


def text(message: Message, key: str, external_url: str = "", limit: int = 20) -> str:
    """The message for people: a paragraph for each of at most `limit` alerts, then the deduplication key."""
    lines = []
    for alert in message.alerts[:limit]:
        number = "" if alert.value is None else f", value {alert.value:.6g}"
        lines.append(f"{alert.status.upper()} {alert.name}{number}, since {to_rfc3339(alert.starts_at)}")
        lines += [f"  {name}: {value}" for name, value in sorted(alert.annotations.items())]
        labels = ", ".join(f"{name}={value}" for name, value in sorted(alert.labels.items()) if name != "alertname")
        lines += [f"  {labels}", ""]
    more = len(message.alerts) - limit
    if more > 0 or message.truncated:
        lines += [f"and {max(more, 0) + message.truncated} more", ""]
    return "\n".join([*lines, *([external_url] if external_url else []), f"({key})"])
