"""The notifications file: Alertmanager's `route`, `receivers`, `inhibit_rules` and `time_intervals`, in YAML.

A wrong file is refused whole, with file, line and reason. No secret stands in it: each is named by an environment
variable (`url_env`, `secret_env`) or by a file (`url_file`, `secret_file`), and never shown.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import yaml

from modelmeter.config import Config
from modelmeter.document import Document, Fields
from modelmeter.errors import WrongSetting
from modelmeter.inhibition import InhibitRule
from modelmeter.matcher import Matcher, parse_matchers
from modelmeter.notify.alertmanager import Alertmanager
from modelmeter.notify.apprise import Apprise, check_url
from modelmeter.notify.log import Log
from modelmeter.notify.outcome import Destination
from modelmeter.notify.webhook import Webhook
from modelmeter.routing import Route, Timing, route_key
from modelmeter.time_interval import (
    Range,
    TimeInterval,
    parse_days_of_month,
    parse_months,
    parse_times,
    parse_weekdays,
    parse_years,
)
from modelmeter.window import MINUTE, SECOND, parse_duration

_ROUTE = {
    "receiver", "matchers", "match", "match_re", "continue", "group_by", "group_wait", "group_interval",
    "repeat_interval", "mute_time_intervals", "active_time_intervals", "routes",
}  # fmt: skip
_INHIBIT = {"source_matchers", "target_matchers", "source_match", "target_match", "source_match_re", "target_match_re"}
_ELSEWHERE = "not a destination of its own here; use apprise_configs with the URL that Apprise has for it"
_RECEIVER_HINTS = {
    f"{kind}_configs": _ELSEWHERE
    for kind in (
        "email", "slack", "pagerduty", "opsgenie", "pushover", "victorops", "wechat", "telegram", "sns",
        "discord", "webex", "msteams", "jira", "rocketchat",
    )
}  # fmt: skip
_FILE_HINTS = {
    "global": "not needed: each receiver says what it needs",
    "templates": "not supported: the texts are annotations of the rules",
}
_HIDE = (
    "a secret does not stand in this file: put it into the environment and write {0}_env: ITS_NAME, "
    "or into a file and write {0}_file: ITS_PATH"
)
_SECRET_HINTS = {
    name: _HIDE.format("bearer")
    for name in ("password", "token", "bearer_token", "api_key", "credentials", "authorization", "basic_auth")
} | {
    "hmac": _HIDE.format("secret"),
    "key": _HIDE.format("secret"),
    "http_config": "not supported; for a token write bearer_env: ITS_NAME or bearer_file: ITS_PATH",
}
_SECRET_QUERY = re.compile(r"(token|key|secret|passw|sig|auth)", re.IGNORECASE)
_SECRET_HOSTS = ("hooks.slack.com", "discord.com", "discordapp.com", "webhook.office.com", "api.telegram.org")


@dataclass(frozen=True, slots=True)
class Notifications:
    """What a file says. `sources` are the files that it was read from: itself and those with secrets."""

    route: Route
    receivers: Mapping[str, tuple[Destination, ...]]
    inhibit_rules: tuple[InhibitRule, ...] = ()
    time_intervals: Mapping[str, tuple[TimeInterval, ...]] = field(default_factory=dict)
    sources: tuple[Path, ...] = ()

    def destination(self, name: str) -> Destination | None:
        return self.destinations().get(name)

    def destinations(self) -> dict[str, Destination]:
        """All of them, by name."""
        return {one.name: one for some in self.receivers.values() for one in some}


def log_only() -> Notifications:
    """What holds without a file: every alert to the log, at once."""
    return Notifications(Route("{}", "log", group_by=None, timing=Timing(group_wait=0)), {"log": (Log("log/log/0"),)})


def read_notifications(
    config: Config, environment: Mapping[str, str] | None = None, content: str | None = None
) -> Notifications:
    """Of the file that the setting `notifications` names. WrongSetting."""
    if config.notifications is None:
        return log_only()
    return _Reading(config, Document(config.notifications, content), environment).read()


class _Reading:
    def __init__(self, config: Config, document: Document, environment: Mapping[str, str] | None) -> None:
        self._config = config
        self._document = document
        self._environment = os.environ if environment is None else environment
        self._sources = [document.path]
        self._keys: dict[str, int] = {}

    def read(self) -> Notifications:
        document = self._document
        if document.root is None:
            raise WrongSetting(f"{document.path}:1: the file is empty; it needs at least route and receivers")
        known = {"route", "receivers", "inhibit_rules", "time_intervals", "mute_time_intervals"}
        found = document.fields(document.root, known, "the file", _FILE_HINTS)
        for needed in ("route", "receivers"):
            if needed not in found:
                raise document.wrong(document.root, f"the file needs {needed}")
        receivers = self._receivers(found["receivers"])
        intervals: dict[str, tuple[TimeInterval, ...]] = {}
        for name in ("time_intervals", "mute_time_intervals"):
            for node in document.items(found.get(name), name):
                self._named_interval(node, intervals)
        root = Route("", "", group_by=())
        route = self._route(found["route"], root, receivers, intervals)
        rules = tuple(self._inhibit_rule(node) for node in document.items(found.get("inhibit_rules"), "inhibit_rules"))
        return Notifications(route, receivers, rules, intervals, tuple(self._sources))

    # The tree.

    def _route(
        self,
        node: yaml.Node,
        parent: Route,
        receivers: Mapping[str, object],
        intervals: Mapping[str, object],
    ) -> Route:
        document = self._document
        found = document.fields(node, _ROUTE, "a route")
        matchers = self._matchers(found, "")
        is_root = not parent.key
        if is_root:
            if "receiver" not in found:
                raise document.wrong(node, "the first route needs a receiver: it takes what no other one does")
            for name in ("matchers", "match", "match_re", "continue", "mute_time_intervals", "active_time_intervals"):
                if name in found:
                    raise document.wrong(found[name], f"the first route takes everything: {name} is for those below it")
        receiver = document.text(found["receiver"], "receiver") if "receiver" in found else parent.receiver
        if receiver not in receivers:
            raise document.wrong(found["receiver"], f"there is no receiver {receiver!r}{_near(receiver, receivers)}")
        for name in ("mute_time_intervals", "active_time_intervals"):
            for one in document.items(found.get(name), name):
                wanted = document.text(one, name)
                if wanted not in intervals:
                    raise document.wrong(one, f"there is no time interval {wanted!r}{_near(wanted, intervals)}")
        key = route_key(parent.key, matchers, 0)
        number = self._keys.get(key, 0)
        self._keys[key] = number + 1
        route = Route(
            route_key(parent.key, matchers, number),
            receiver,
            matchers,
            document.flag(found, "continue", default=False),
            self._group_by(found["group_by"]) if "group_by" in found else parent.group_by,
            Timing(
                self._duration(found, "group_wait", parent.timing.group_wait, 0),
                self._duration(found, "group_interval", parent.timing.group_interval),
                self._duration(found, "repeat_interval", parent.timing.repeat_interval),
            ),
            tuple(document.texts(found.get("mute_time_intervals"), "mute_time_intervals")),
            tuple(document.texts(found.get("active_time_intervals"), "active_time_intervals")),
        )
        children = document.items(found.get("routes"), "routes")
        return replace(route, routes=tuple(self._route(child, route, receivers, intervals) for child in children))

    def _group_by(self, node: yaml.Node) -> tuple[str, ...] | None:
        names = self._document.texts(node, "group_by")
        if "..." in names:
            if len(names) > 1:
                raise self._document.wrong(node, "group_by: '...' is all labels, and stands alone")
            return None
        if len(set(names)) < len(names):
            raise self._document.wrong(node, "group_by: a label stands twice")
        return tuple(sorted(names))

    def _duration(self, found: Fields, name: str, default: int, least: int = 1) -> int:
        if name not in found:
            return default
        text = self._document.text(found[name], name)
        try:
            duration = parse_duration("0s" if text == "0" else text)
        except ValueError as error:
            raise self._document.wrong(found[name], f"{name}: {error}") from None
        if duration < least:
            raise self._document.wrong(found[name], f"{name} must be more than 0")
        return duration

    def _matchers(self, found: Fields, prefix: str) -> tuple[Matcher, ...]:
        """Those of the three forms together, sorted as Alertmanager sorts them."""
        matchers: list[Matcher] = []
        for node in self._document.items(found.get(f"{prefix}matchers"), f"{prefix}matchers"):
            try:
                matchers += parse_matchers(self._document.text(node, "a matcher"))
            except ValueError as error:
                raise self._document.wrong(node, str(error)) from None
        for name, operator in ((f"{prefix}match", "="), (f"{prefix}match_re", "=~")):
            for label, value in self._document.mapping(found.get(name), name).items():
                matcher = Matcher(label, operator, value)  # type: ignore[arg-type]
                try:
                    matcher.matches_missing()
                except ValueError as error:
                    raise self._document.wrong(found[name], str(error)) from None
                matchers.append(matcher)
        return tuple(sorted(matchers, key=lambda one: (one.name, one.value, one.operator)))

    def _inhibit_rule(self, node: yaml.Node) -> InhibitRule:
        found = self._document.fields(node, {*_INHIBIT, "equal", "name"}, "an inhibit rule")
        source, target = self._matchers(found, "source_"), self._matchers(found, "target_")
        if not source or not target:
            raise self._document.wrong(node, "an inhibit rule needs source_matchers and target_matchers")
        return InhibitRule(source, target, tuple(self._document.texts(found.get("equal"), "equal")))

    # Time intervals.

    def _named_interval(self, node: yaml.Node, into: dict[str, tuple[TimeInterval, ...]]) -> None:
        document = self._document
        found = document.fields(node, {"name", "time_intervals"}, "a time interval")
        if "name" not in found:
            raise document.wrong(node, "a time interval needs a name")
        name = document.text(found["name"], "name")
        if name in into:
            raise document.wrong(found["name"], f"the time interval {name!r} stands twice")
        into[name] = tuple(self._interval(one) for one in document.items(found.get("time_intervals"), "time_intervals"))

    def _interval(self, node: yaml.Node) -> TimeInterval:
        document = self._document
        known = {"times", "weekdays", "days_of_month", "months", "years", "location"}
        found = document.fields(node, known, "a time interval")

        def ranges(name: str, parse: Callable[[str], Range]) -> tuple[Range, ...] | None:
            if name not in found:
                return None
            some = []
            for one in document.items(found[name], name):
                try:
                    some.append(parse(document.text(one, name)))
                except ValueError as error:
                    raise document.wrong(one, f"{name}: {error}") from None
            return tuple(some) or None

        times = []
        for one in document.items(found.get("times"), "times"):
            parts = document.fields(one, {"start_time", "end_time"}, "a range of times")
            if len(parts) < 2:
                raise document.wrong(one, "a range of times needs start_time and end_time")
            try:
                times.append(parse_times(*(document.text(parts[name], name) for name in ("start_time", "end_time"))))
            except ValueError as error:
                raise document.wrong(one, f"times: {error}") from None
        return TimeInterval(
            tuple(times) or None,
            ranges("weekdays", parse_weekdays),
            ranges("days_of_month", parse_days_of_month),
            ranges("months", parse_months),
            ranges("years", parse_years),
            self._location(found["location"]) if "location" in found else None,
        )

    def _location(self, node: yaml.Node) -> ZoneInfo:
        name = self._document.text(node, "location")
        try:
            return ZoneInfo("localtime" if name == "Local" else name)
        except (ValueError, OSError, KeyError):
            raise self._document.wrong(
                node, f"location: there is no time zone {name!r}; write it like Europe/Berlin"
            ) from None

    # Receivers.

    def _receivers(self, node: yaml.Node) -> dict[str, tuple[Destination, ...]]:
        document = self._document
        kinds: dict[str, Callable[[yaml.Node, str], Destination]] = {
            "log": self._log, "webhook": self._webhook, "apprise": self._apprise, "alertmanager": self._alertmanager,
        }  # fmt: skip
        receivers: dict[str, tuple[Destination, ...]] = {}
        for one in document.items(node, "receivers"):
            known = {"name", *(f"{kind}_configs" for kind in kinds)}
            found = document.fields(one, known, "a receiver", _RECEIVER_HINTS)
            if "name" not in found:
                raise document.wrong(one, "a receiver needs a name")
            name = document.text(found["name"], "name")
            if name in receivers:
                raise document.wrong(found["name"], f"the receiver {name!r} stands twice")
            receivers[name] = tuple(
                make(config, f"{name}/{kind}/{number}")
                for kind, make in kinds.items()
                for number, config in enumerate(document.items(found.get(f"{kind}_configs"), f"{kind}_configs"))
            )
        return receivers

    def _destination(self, node: yaml.Node, known: set[str], what: str, *, resolved: bool) -> tuple[Fields, bool]:
        secrets = {name for name in ("url", "secret", "bearer") if name in known}
        known = {"send_resolved", *known, *(f"{one}_{way}" for one in secrets for way in ("env", "file"))}
        if isinstance(node, yaml.ScalarNode) and not str(node.value):
            return {}, resolved
        found = self._document.fields(node, known, what, _SECRET_HINTS)
        return found, self._document.flag(found, "send_resolved", resolved)

    def _log(self, node: yaml.Node, name: str) -> Destination:
        _, send_resolved = self._destination(node, set(), "a log", resolved=True)
        return Log(name, send_resolved)

    def _webhook(self, node: yaml.Node, name: str) -> Destination:
        found, send_resolved = self._destination(
            node, {"url", "secret", "bearer", "max_alerts", "timeout"}, "a webhook", resolved=True
        )
        limit = self._document.text(found["max_alerts"], "max_alerts") if "max_alerts" in found else "0"
        if not limit.isascii() or not limit.isdigit() or len(limit) > 9:
            raise self._document.wrong(found["max_alerts"], "max_alerts must be a number; 0 means all")
        return Webhook(
            name,
            self._url(found, node, "a webhook"),
            self._secret(found, "secret"),
            self._secret(found, "bearer"),
            send_resolved,
            int(limit),
            self._timeout(found),
            self._config.external_url,
        )

    def _alertmanager(self, node: yaml.Node, name: str) -> Destination:
        found, send_resolved = self._destination(
            node, {"url", "bearer", "resend_interval", "timeout"}, "an Alertmanager", resolved=True
        )
        return Alertmanager(
            name,
            self._url(found, node, "an Alertmanager"),
            self._secret(found, "bearer"),
            send_resolved,
            self._duration(found, "resend_interval", MINUTE),
            self._timeout(found),
            self._config.external_url,
        )

    def _apprise(self, node: yaml.Node, name: str) -> Destination:
        found, send_resolved = self._destination(node, {"url"}, "an Apprise URL", resolved=True)
        if "url" in found:
            raise self._document.wrong(found["url"], f"url: {_HIDE.format('url')}")
        url = self._secret(found, "url")
        if not url:
            raise self._document.wrong(node, "an Apprise URL needs url_env or url_file")
        try:
            check_url(url)
        except WrongSetting as error:
            raise self._document.wrong(node, error.detail) from None
        return Apprise(name, url, send_resolved, self._config.external_url)

    def _timeout(self, found: Fields) -> float:
        default = int(self._config.notification_timeout_seconds * SECOND)
        return self._duration(found, "timeout", default) / SECOND

    def _url(self, found: Fields, owner: yaml.Node, what: str) -> str:
        url = self._secret(found, "url")
        node = found.get("url", found.get("url_env", found.get("url_file", owner)))
        if "url" in found:
            url = self._document.text(node, "url")
        elif not url:
            raise self._document.wrong(owner, f"{what} needs url, or url_env or url_file when it holds a secret")
        try:
            parts = urlsplit(url)
            good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            good = False
        if not good:
            raise self._document.wrong(node, "url: this is no http:// or https:// address")
        if "url" in found and (
            parts.password is not None
            or any(_SECRET_QUERY.search(key) for key, _ in parse_qsl(parts.query))
            or str(parts.hostname).endswith(_SECRET_HOSTS)
        ):
            raise self._document.wrong(node, f"url: it holds a secret; {_HIDE.format('url')}")
        return url

    def _secret(self, found: Fields, name: str) -> str:
        """The secret that `name`_env or `name`_file leads to; empty when there is none of both."""
        document = self._document
        if name in found and name != "url":
            raise document.wrong(found[name], f"{name}: {_HIDE.format(name)}")
        ways = [one for one in (name, f"{name}_env", f"{name}_file") if one in found]
        if len(ways) > 1:
            raise document.wrong(found[ways[1]], f"{ways[0]} and {ways[1]}: give one of them")
        if f"{name}_env" in found:
            node = found[f"{name}_env"]
            variable = document.text(node, f"{name}_env")
            secret = self._environment.get(variable, "").strip()
            if not secret:
                raise document.wrong(node, f"{name}_env: the environment has no {variable}, or it is empty")
            return secret
        if f"{name}_file" in found:
            node = found[f"{name}_file"]
            path = document.path.parent / document.text(node, f"{name}_file")
            try:
                secret = path.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not a text"
                raise document.wrong(node, f"{name}_file: {path}: {reason}") from None
            if not secret:
                raise document.wrong(node, f"{name}_file: {path} is empty")
            self._sources.append(path)
            return secret
        return ""


def _near(word: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(known)) or 'none'}"
