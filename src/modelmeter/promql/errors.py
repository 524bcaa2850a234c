"""What can be wrong with a query, in Prometheus' three kinds: `bad_data`, `execution`, `timeout`.

QueryError
├── BadQuery          bad_data, 400: the text does not parse, or its types do not fit
├── QueryFailed       execution, 422: the query is fine, but these data do not answer it
│   └── TooMuchData   execution, 422: over a limit on samples or series
└── QueryTimeout      timeout, 503: it took longer than it may
"""

from typing import ClassVar

from modelmeter.errors import CallerError


class QueryError(CallerError):
    """`kind` is the `errorType` of Prometheus' HTTP API, `detail` its `error`."""

    kind: ClassVar[str] = "execution"
    title = "Query failed"


class BadQuery(QueryError):
    kind = "bad_data"
    title = "Bad query"


class QueryFailed(QueryError):
    status = 422


class TooMuchData(QueryFailed):
    pass


class QueryTimeout(QueryError):
    kind = "timeout"
    status = 503
    title = "Query timed out"


def too_many_samples() -> TooMuchData:
    """Prometheus' words, in every place that counts samples."""
    return TooMuchData("query processing would load too many samples into memory in query execution")


def same_labelset() -> QueryFailed:
    return QueryFailed("vector cannot contain metrics with the same labelset")
