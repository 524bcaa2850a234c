"""What rules read from in one snapshot: the stored series, read once for all rules, and what `compare` asks for."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from modelmeter.config import Config
from modelmeter.judge import View
from modelmeter.matcher import Matcher
from modelmeter.promql import Limits, QueryTimeout, Source, parse_selector
from modelmeter.promql.labels import Labels
from modelmeter.promql.text import to_text
from modelmeter.reader import Connection
from modelmeter.rule import AlertRule, Rule
from modelmeter.rule.compare import Baseline, Compare, Versions, expand
from modelmeter.series import Catalog, SeriesSource
from modelmeter.shared_source import SharedSource
from modelmeter.store.alerts import read_baselines, read_versions
from modelmeter.window import SECOND, Span


@dataclass(slots=True)
class RuleReads:
    """Lives as long as the snapshot that `connection` has open."""

    config: Config
    connection: Connection
    catalog: Catalog
    source: SeriesSource = field(init=False)
    shared: SharedSource = field(init=False)
    _known: dict[tuple[object, ...], list[Labels]] = field(default_factory=dict)
    _versions: Versions | None = None
    _baselines: dict[str, Baseline] | None = None

    def __post_init__(self) -> None:
        self.source = SeriesSource(
            self.connection, self.catalog, self.config.query_exact_limit_samples, self.config.query_limit_samples
        )
        self.shared = SharedSource(self.source)

    def expect(self, rules: Sequence[Rule]) -> None:
        """What these rules will read is read together."""
        lookback = self.limits().lookback
        self.shared.streams = len(self.source.find(())[0])
        for rule in rules:
            self.shared.expect((one.matchers, one.range_ or lookback) for one in rule.reads)

    def view(self, now: int, query_offset: int = 0, source: Source | None = None) -> View:
        """For one group at one time."""
        return View(
            source or self.shared,
            now,
            self.limits(),
            query_offset,
            lambda matchers: self._series(matchers, now),
            {},
            self.config.external_url,
            self.config.no_data,
        )

    def limits(self) -> Limits:
        """Those of a query, from now on."""
        deadline = time.monotonic() + self.config.query_timeout_seconds

        def check() -> None:
            if time.monotonic() > deadline:
                raise QueryTimeout("the rules took longer than MODELMETER_QUERY_TIMEOUT_SECONDS")

        return Limits(samples=self.config.query_limit_samples, series=self.config.query_limit_series, check_time=check)

    def expanded(self, rule: AlertRule) -> AlertRule:
        """The rule with its `compare` written out. ValueError when it names what is not there."""
        if not rule.compare or rule.compare == "previous_window":
            return rule
        if self._versions is None:
            self._versions = read_versions(self.connection)
        if self._baselines is None:
            self._baselines = {
                name: Baseline(parse_selector(match), start, end)
                for name, match, start, end in read_baselines(self.connection)
            }
        expression = expand(Compare.of(rule.compare), rule.expression, self._versions, self._baselines)
        return replace(rule, expression=expression, query=to_text(expression))

    def _series(self, matchers: Sequence[Matcher], now: int) -> list[Labels]:
        key = (tuple(matchers), now)
        if key not in self._known:
            horizon = round(self.config.silence_horizon_seconds * SECOND)
            self._known[key] = self.source.series([matchers], Span(max(now - horizon, 0), now + 1))
        return self._known[key]
