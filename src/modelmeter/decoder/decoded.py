"""What became of a body, and which timestamps are accepted."""

from dataclasses import dataclass, field

from modelmeter import window
from modelmeter.batch import TIMESTAMP, Batch, Refusal, Refused

ERRORS_SHOWN = 100


@dataclass(slots=True)
class Decoded:
    """What became of one body. `refusals` holds the first ERRORS_SHOWN of `rejected`."""

    batches: list[Batch] = field(default_factory=list)
    accepted: int = 0
    rejected: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)

    def refuse(self, index: int, refused: Refused) -> None:
        self.rejected += 1
        self.codes[refused.code] = self.codes.get(refused.code, 0) + 1
        if len(self.refusals) < ERRORS_SHOWN:
            field = None if refused.field is None else _printable(refused.field)
            self.refusals.append(Refusal(index, field, refused.code, _printable(refused.detail)))

    def keep(self, batch: Batch) -> None:
        if len(batch):
            self.batches.append(batch)
            self.accepted += len(batch)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The timestamps that are accepted at `now`; microseconds."""

    now: int
    earliest: int
    latest: int

    def check(self, instant: int) -> None:
        if instant > self.latest:
            ahead = window.format_duration(self.latest - self.now)
            raise Refused(
                TIMESTAMP, "in_future", f"timestamp: {window.to_rfc3339(instant)} is more than {ahead} ahead of now"
            )
        if instant < self.earliest:
            raise Refused(
                TIMESTAMP,
                "too_old",
                f"timestamp: {window.to_rfc3339(instant)} is before {window.to_rfc3339(self.earliest)}, "
                "older than any retention reaches",
            )


def _printable(text: str) -> str:
    """A refusal may quote a lone surrogate, which no answer could be encoded with."""
    return text.encode(errors="replace").decode()
