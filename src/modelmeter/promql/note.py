"""Annotations: what is doubtful about an answer, in Prometheus' words but without the position in the query."""

from dataclasses import dataclass, field

from modelmeter.promql.format import format_general, quote


@dataclass(slots=True)
class Notes:
    """Collected while a query runs; each text once, in the order they came up."""

    _warnings: dict[str, None] = field(default_factory=dict)
    _infos: dict[str, None] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        return list(self._warnings)

    @property
    def infos(self) -> list[str]:
        return list(self._infos)

    def warn(self, text: str) -> None:
        self._warnings[f"PromQL warning: {text}"] = None

    def inform(self, text: str) -> None:
        self._infos[f"PromQL info: {text}"] = None

    def not_a_counter(self, name: str) -> None:
        self.inform(f"metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {quote(name)}")

    def bad_quantile(self, q: float) -> None:
        self.warn(f"quantile value should be between 0 and 1, got {format_general(q)}")

    def bad_ratio(self, ratio: float, limit: float) -> None:
        self.warn(
            f"ratio value should be between -1 and 1, got {format_general(ratio)}, capping to {format_general(limit)}"
        )

    def sort_in_range_query(self) -> None:
        self.warn("sort is ineffective for range queries since results are always ordered by labels")

    def bad_bucket(self, value: str) -> None:
        self.warn(f'bucket label "le" is missing or has a malformed value of {quote(value)}')

    def forced_monotonicity(self) -> None:
        self.inform(
            "input to histogram_quantile needed to be fixed for monotonicity "
            "(see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
        )
