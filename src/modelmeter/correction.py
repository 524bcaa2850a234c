"""A correction: which events are taken out again, once stored or on their way. Pure: a value and what it leaves.

It takes effect on what was received before it: of a message on the queue, by the message's time; of a chunk, by when
it was stored. What was received later stays, whatever its timestamps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelmeter.batch import Batch, Labels, fingerprint, take
from modelmeter.errors import Malformed
from modelmeter.matcher import Matcher
from modelmeter.promql.errors import BadQuery
from modelmeter.promql.labels import METRIC_NAME
from modelmeter.promql.parse import parse_selector
from modelmeter.window import Span

DELETE, REPLACE = "delete", "replace"


@dataclass(frozen=True, slots=True)
class Correction:
    """Times are UTC microseconds; the streams are those that `match`, or those with one of the `fingerprints`."""

    kind: str
    received_at: int
    match: str | None
    fingerprints: frozenset[bytes]
    span: Span
    author: str
    reason: str

    def touches(self, streams: Sequence[Labels]) -> NDArray[np.bool_]:
        """For each stream, whether it is one of those."""
        if self.match is None:
            return np.fromiter((fingerprint(labels) in self.fingerprints for labels in streams), bool, len(streams))
        found = np.ones(len(streams), np.bool_)
        for matcher in parse_match(self.match):
            found &= matcher.matches([dict(labels).get(matcher.name, "") for labels in streams])
        return found


def parse_match(text: str) -> tuple[Matcher, ...]:
    """The matchers of a selector of streams. Malformed when it is none, or one that takes everything."""
    try:
        matchers = parse_selector(text)
        for matcher in matchers:
            matcher.matches([""])
    except (BadQuery, ValueError) as error:
        raise Malformed(f'match: {error}; write it like {{name="Mistral",env=~"eu-.*"}}', field="match") from None
    if any(matcher.name == METRIC_NAME for matcher in matchers):
        raise Malformed("match: names a metric; events are corrected whole: match their labels", field="match")
    return matchers


def uncorrected(batches: Sequence[Batch], received_at: int, corrections: Sequence[Correction]) -> list[Batch]:
    """What is left of the batches of a message that was received then."""
    later = [one for one in corrections if received_at < one.received_at]
    if not later:
        return list(batches)
    kept = []
    for batch in batches:
        mask = np.ones(len(batch), np.bool_)
        for one in later:
            inside = (batch.timestamp >= one.span.start) & (batch.timestamp < one.span.end)
            if inside.any():
                mask &= ~(inside & one.touches(batch.streams)[batch.stream])
        if mask.all():
            kept.append(batch)
        elif mask.any():
            kept.append(take(batch, mask))
    return kept
