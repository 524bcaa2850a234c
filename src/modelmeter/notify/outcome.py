"""What a destination is, and what came of sending to it: delivered, failed for now, or failed for good."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from modelmeter.notification import Message

REASON_LIMIT = 300
_PASSING_STATUS = frozenset((408, 421, 423, 425, 429))
_LEAST_SECRET = 4  # shorter ones would blank out ordinary words


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination has it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It has not. `permanent`: the same message will never do. The reason holds no secret."""

    reason: str
    permanent: bool = False
    retry_after_seconds: float | None = None


Outcome = Delivered | Failed


class Destination(Protocol):
    """Where messages go. `name` is `receiver/kind/number`, by which deliveries that wait are known."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def send_resolved(self) -> bool: ...

    def send(self, message: Message, key: str, now: int) -> Outcome:
        """Blocks until it is known. `key` is the same whenever the same message is sent again."""


def is_permanent(status: int) -> bool:
    """Whether the same request would be answered with this HTTP status again, however often."""
    return status < 500 and status not in _PASSING_STATUS


def clean(text: str, secrets: Sequence[str] = ()) -> str:
    """A reason fit to be stored and shown: one line, bounded, without these secrets and what an URL may hide."""
    text = text[: 4 * REASON_LIMIT]
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _LEAST_SECRET:
            text = text.replace(secret, "…")
    text = re.sub(r"\b([a-z][a-z0-9+.-]{0,20})://\S+", r"\1://…", text, flags=re.IGNORECASE)
    return " ".join(text.split())[:REASON_LIMIT]
