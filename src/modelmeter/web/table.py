"""Tables as CSV and as an Arrow IPC stream."""

import io

import polars as pl
from starlette.responses import Response

from modelmeter.web.accept import ARROW, CSV

RFC3339 = "%Y-%m-%dT%H:%M:%S%.6fZ"


def respond_with_table(frame: pl.DataFrame, media: str) -> Response:
    """As `media`, CSV or ARROW."""
    if media == CSV:
        return Response(frame.write_csv(datetime_format=RFC3339).encode(), media_type=f"{CSV}; charset=utf-8")
    return Response(arrow_stream(frame), media_type=ARROW)


def arrow_stream(frame: pl.DataFrame) -> bytes:
    """In the types that every reader of Arrow knows."""
    body = io.BytesIO()
    frame.write_ipc_stream(body, compat_level=pl.CompatLevel.oldest())
    return body.getvalue()
