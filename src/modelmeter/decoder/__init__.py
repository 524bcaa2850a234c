"""Request bodies to batches: JSON, NDJSON and Arrow IPC; which events are refused and why.

JSON has two readers. The strict one looks at each event by itself and names what is wrong with it. The fast one
(msgspec structs made for the fields seen before) is taken first, and its result only when it is provably the strict
one's: no unknown field, no other type, and as many quotation marks in the body as the fields it found account for,
so that nothing was dropped (a duplicate key, a nested field). Otherwise the strict one reads the body again.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from modelmeter.batch import NAME, TIMESTAMP, VERSION, Batch, Refused
from modelmeter.decoder.codebook import Admit, Codebook
from modelmeter.decoder.decoded import ERRORS_SHOWN, Bounds, Decoded
from modelmeter.decoder.fast import Schema, signature
from modelmeter.decoder.ipc import unpacked_size
from modelmeter.decoder.strict import load_json, load_ndjson, read_event
from modelmeter.decoder.table import AdmitMetric, Table, first_line
from modelmeter.errors import Malformed, TooLarge

_SCHEMAS_KEPT = 64


class Decoder:
    """Decodes bodies; remembers the shapes and label sets it saw, to be fast the next time."""

    def __init__(self, admit_stream: Admit, admit_metric: AdmitMetric) -> None:
        self._admit_metric = admit_metric
        self._codebook = Codebook(admit_stream)
        self._schemas: dict[tuple[bytes, ...], Schema] = {}

    def json(self, body: bytes, bounds: Bounds) -> Decoded:
        """One object or an array of objects. Malformed when it is not JSON or neither of the two."""
        return self._fast(body, bounds, lines=False) or self._strict(load_json(body), body, bounds)

    def ndjson(self, body: bytes, bounds: Bounds) -> Decoded:
        """One object a line. A line that is not JSON is a refused event; Malformed when no line is."""
        return self._fast(body, bounds, lines=True) or self._strict(load_ndjson(body), body, bounds)

    def _fast(self, body: bytes, bounds: Bounds, *, lines: bool) -> Decoded | None:
        schema = self._schemas.get(signature(body))
        if schema is None:
            return None
        batch = schema.read(body, self._codebook, bounds, lines=lines)
        if batch is None:
            return None
        decoded = Decoded()
        decoded.keep(batch)
        return decoded

    def _forget_if_full(self) -> None:
        if self._codebook.is_full:
            self._codebook.clear()
            for schema in self._schemas.values():
                schema.codes.clear()

    def _learn(self, body: bytes, shape: dict[str, str], filled: int, events: int) -> None:
        """Make a fast reader for bodies that begin like this one, unless it would be mostly holes."""
        metrics = [key for key, kind in shape.items() if kind == "metric"]
        if len(shape) > 512 or filled * 2 < len(metrics) * events or b"\\" in body:
            return  # with escapes a name may hold what a struct's field cannot
        if len(self._schemas) >= _SCHEMAS_KEPT:
            self._schemas.pop(next(iter(self._schemas)))
        self._schemas[signature(body)] = Schema(shape)

    def _strict(self, events: Sequence[Any], body: bytes, bounds: Bounds) -> Decoded:
        self._forget_if_full()
        decoded = Decoded()
        shape: dict[str, str] = {NAME: "label", VERSION: "label"}
        learnable, filled = True, 0
        groups: dict[tuple[str, ...], tuple[list[int], list[int], list[list[float]]]] = {}
        for index, event in enumerate(events):
            try:
                pairs, instant, metrics, stamp = read_event(event, bounds)
                code = self._codebook.code_of(
                    pairs.items()
                )  # first: what is refused for its labels must use up no metric
                for name in metrics:
                    self._admit_metric(name)
            except Refused as refused:
                decoded.refuse(index, refused)
                continue
            codes, instants, rows = groups.setdefault(tuple(metrics), ([], [], []))
            codes.append(code)
            instants.append(instant)
            rows.append(list(metrics.values()))
            filled += len(metrics)
            for key, kind in (*((key, "label") for key in pairs), *((key, "metric") for key in metrics)):
                learnable &= shape.setdefault(key, kind) == kind
            if stamp:
                learnable &= shape.setdefault(TIMESTAMP, stamp) == stamp
        for names, (codes, instants, rows) in groups.items():
            columns = np.array(rows, np.float64).T
            streams, stream = self._codebook.streams_of(np.array(codes))
            decoded.keep(
                Batch(streams, stream, np.array(instants, np.int64), dict(zip(names, columns.copy(), strict=True)))
            )
        if learnable and decoded.accepted:
            self._learn(body, shape, filled, decoded.accepted)
        return decoded

    def arrow(self, body: bytes, bounds: Bounds, limit_bytes: int = 2**31) -> Decoded:
        """An Arrow IPC stream: string columns are labels, number columns metrics. Malformed when unreadable.

        TooLarge when it would be over `limit_bytes` unpacked.
        """
        try:
            size = unpacked_size(body)
        except ValueError as error:
            raise Malformed(f"the body is no Arrow IPC stream: {error}") from None
        if size > limit_bytes:
            detail = f"the body is {size} bytes unpacked, over {limit_bytes}; send fewer events at a time"
            raise TooLarge(detail, limit_bytes=limit_bytes)
        try:
            table = pl.read_ipc_stream(io.BytesIO(body)).rechunk()
        except (pl.exceptions.PolarsError, OSError, ValueError) as error:
            raise Malformed(f"the body is no Arrow IPC stream: {first_line(error)}") from None
        except pl.exceptions.PanicException as error:
            raise Malformed(f"the body is no Arrow IPC stream: {first_line(error)}") from None
        if not table.height:
            raise Malformed("the body holds no event")
        self._forget_if_full()
        return Table(self._codebook, self._admit_metric, table, bounds).read()


__all__ = ["ERRORS_SHOWN", "Admit", "AdmitMetric", "Bounds", "Decoded", "Decoder"]
