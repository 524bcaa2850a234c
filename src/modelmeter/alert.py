"""The states of an alert, as a pure function of (state, finding, now): Prometheus' semantics, and more evidence.

An alert is inactive (no state), pending (the condition holds, not yet for as long as `for`), or firing. What is found
in the data is not only «holds» or «does not»: the data can be too few, or absent. Absence resolves nothing unless
the rule says so.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

StateName = Literal["inactive", "pending", "firing"]
NoData = Literal["keep", "alert", "ok"]
NO_DATA: tuple[NoData, ...] = ("keep", "alert", "ok")


class Finding(StrEnum):
    """What one evaluation found for one set of labels."""

    HOLDS = "holds"
    CLEAR = "clear"
    BETWEEN = "between"
    """The condition does not hold, and neither does the rule's `recover`."""
    FEW = "few"
    """Fewer events than `min_samples`: whatever they say is no evidence."""
    SILENT = "silent"
    """No event at all where the expression looks."""


class Reason(StrEnum):
    """Why an alert is in the state that it is in. What each means stands in docs/alerting.md."""

    CONDITION = "condition"
    HELD = "held"
    CLEARED = "cleared"
    RECOVERED = "recovered"
    NOT_RECOVERED = "not_recovered"
    KEPT_FIRING = "keep_firing_for"
    FEW_SAMPLES = "min_samples"
    NO_DATA = "no_data"
    NO_DATA_KEPT = "no_data_kept"
    NO_DATA_OK = "no_data_ok"
    RULE_REMOVED = "rule_removed"
    DISMISSED = "dismissed"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a rule asks for. Durations in microseconds."""

    hold: int = 0
    keep_firing: int = 0
    no_data: NoData = "keep"
    recovers: bool = False
    """Whether the rule has a `recover`: then a resolved alert has recovered, else cleared."""


@dataclass(frozen=True, slots=True)
class State:
    """A pending alert, or a firing one (then it has `fired_at`). Instants in microseconds."""

    active_at: int
    fired_at: int | None = None
    kept_since: int | None = None

    @property
    def name(self) -> StateName:
        return "pending" if self.fired_at is None else "firing"


def name_of(state: State | None) -> StateName:
    return "inactive" if state is None else state.name


def step(state: State | None, finding: Finding, policy: Policy, now: int) -> tuple[State | None, Reason]:
    """The next state, and why. `state` None is inactive."""
    if finding is Finding.HOLDS or (finding is Finding.SILENT and policy.no_data == "alert"):
        return _holds(state, policy, now, Reason.NO_DATA if finding is Finding.SILENT else Reason.CONDITION)
    if finding is Finding.FEW:
        return state, Reason.FEW_SAMPLES
    if finding is Finding.SILENT and policy.no_data == "keep":
        return state, Reason.NO_DATA_KEPT
    over = Reason.NO_DATA_OK if finding is Finding.SILENT else Reason.CLEARED
    if state is None or state.fired_at is None:
        return None, over
    if finding is Finding.BETWEEN:
        return replace(state, kept_since=None), Reason.NOT_RECOVERED
    if policy.keep_firing:
        since = now if state.kept_since is None else min(state.kept_since, now)
        if now - since < policy.keep_firing:
            return replace(state, kept_since=since), Reason.KEPT_FIRING
    return None, Reason.RECOVERED if policy.recovers and over is Reason.CLEARED else over


def _holds(state: State | None, policy: Policy, now: int, reason: Reason) -> tuple[State, Reason]:
    if state is None:
        state = State(now)
    elif state.fired_at is not None:
        return replace(state, kept_since=None), reason
    # A clock that was set back makes the wait begin again: it is never cut short.
    state = State(min(state.active_at, now))
    if now - state.active_at < policy.hold:
        return state, reason
    held = Reason.HELD if policy.hold and reason is Reason.CONDITION else reason
    return replace(state, fired_at=now), held
