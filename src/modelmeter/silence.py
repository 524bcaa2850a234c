"""A silence: from its start to its end, alerts whose labels suit all its matchers are not told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from modelmeter.matcher import Matcher


class State(StrEnum):
    """What a silence is at an instant."""

    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Silence:
    """Times are microseconds, half-open."""

    id: UUID
    matchers: tuple[Matcher, ...]
    author: str
    comment: str
    starts_at: int
    ends_at: int
    updated_at: int

    def state(self, now: int) -> State:
        if now < self.starts_at:
            return State.PENDING
        return State.ACTIVE if now < self.ends_at else State.EXPIRED

    def silences(self, labels: Mapping[str, str], now: int) -> bool:
        return self.starts_at <= now < self.ends_at and all(matcher.suits(labels) for matcher in self.matchers)


def check(matchers: Sequence[Matcher], author: str, comment: str, starts_at: int, ends_at: int) -> None:
    """ValueError, naming the field, for a silence that nobody should want."""
    if not matchers:
        raise ValueError('matchers: at least one is needed, like name="Mistral"')
    if all(matcher.matches_missing() for matcher in matchers):
        raise ValueError("matchers: at least one must not match the empty text, or everything would be silent")
    for field, text in (("author", author), ("comment", comment)):
        if not text.strip():
            raise ValueError(f"{field}: say who silences, and why; it is empty")
    if starts_at >= ends_at:
        raise ValueError("ends_at: must be after starts_at")
