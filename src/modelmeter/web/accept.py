"""The form of an answer, by the Accept header (RFC 9110, 12.5.1): q-values and the most specific range decide."""

from collections.abc import Sequence

from starlette.requests import Request

from modelmeter.errors import NotAcceptable

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"


def choose(request: Request, offers: Sequence[str]) -> str:
    """Of `offers` the one that is liked best; of several, the first. NotAcceptable when none is accepted."""
    header = ",".join(request.headers.getlist("accept"))
    ranges = [one for one in map(_range, header.split(",")) if one is not None]
    if not ranges:
        return offers[0]
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    if not _quality(best, ranges):
        raise NotAcceptable(f"Accept: {header:.200} is not here; there are {', '.join(offers)}", offers=list(offers))
    return best


def _range(text: str) -> tuple[str, float] | None:
    media, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                quality = min(max(float(value), 0.0), 1.0)
            except ValueError:
                quality = 0.0
    return (media, quality) if media else None


def _quality(offer: str, ranges: list[tuple[str, float]]) -> float:
    kind = offer.partition("/")[0]
    for wanted in (offer, f"{kind}/*", "*/*"):
        found = [quality for media, quality in ranges if media == wanted]
        if found:
            return max(found)
    return 0.0
