"""PromQL, pure: an expression, a source of samples and a time in, Prometheus' answer out. No I/O, no clock.

parse -> expression        the text, its grammar and types
tree                       the same as Prometheus' JSON
source, reader             what data an evaluation asks for
evaluator                  series by steps as matrices, one node after another
  over_time rate window_samples statistic    ranges
  aggregation binary functions date classic_histogram drift
query, format, note        the entry points, the JSON, the annotations
"""

from modelmeter.promql.errors import BadQuery, QueryError, QueryFailed, QueryTimeout, TooMuchData
from modelmeter.promql.parse import format_query, parse, parse_selector
from modelmeter.promql.query import Result, evaluate_expression, evaluate_instant, evaluate_range
from modelmeter.promql.reader import Limits
from modelmeter.promql.source import Folded, Histograms, Samples, Source
from modelmeter.promql.tree import parse_tree

__all__ = [
    "BadQuery",
    "Folded",
    "Histograms",
    "Limits",
    "QueryError",
    "QueryFailed",
    "QueryTimeout",
    "Result",
    "Samples",
    "Source",
    "TooMuchData",
    "evaluate_expression",
    "evaluate_instant",
    "evaluate_range",
    "format_query",
    "parse",
    "parse_selector",
    "parse_tree",
]
