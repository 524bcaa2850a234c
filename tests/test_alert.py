"""The states of an alert: never skips `for`, never resolves by silence, and always says why."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from modelmeter.alert import Finding, NoData, Policy, Reason, State, name_of, step
from modelmeter.window import MINUTE

many = settings(max_examples=300, deadline=None, derandomize=True, database=None)

DURATIONS = st.sampled_from([0, 1, MINUTE, 5 * MINUTE])
POLICIES = st.builds(Policy, DURATIONS, DURATIONS, st.sampled_from(["keep", "alert", "ok"]), recovers=st.booleans())
HISTORY = st.lists(st.tuples(st.sampled_from(list(Finding)), st.integers(0, 4 * MINUTE)), max_size=40)


def walk(
    policy: Policy, history: Sequence[tuple[Finding, int]]
) -> list[tuple[State | None, Finding, State | None, Reason, int]]:
    """Before, finding, after, reason and time of each step."""
    state: State | None = None
    now = 1_000 * MINUTE
    steps = []
    for finding, wait in history:
        now += wait
        after, reason = step(state, finding, policy, now)
        steps.append((state, finding, after, reason, now))
        state = after
    return steps


@given(POLICIES, HISTORY)
@many
def test_a_firing_alert_resolves_only_on_evidence(policy: Policy, history: list[tuple[Finding, int]]) -> None:
    for before, finding, after, reason, _ in walk(policy, history):
        if name_of(before) == "firing" and name_of(after) == "inactive":
            allowed = {Finding.CLEAR} | ({Finding.SILENT} if policy.no_data == "ok" else set())
            assert finding in allowed
            assert reason in (Reason.CLEARED, Reason.RECOVERED, Reason.NO_DATA_OK)


@given(st.sampled_from(["keep", "alert"]), DURATIONS, DURATIONS, HISTORY)
@many
def test_silence_never_resolves_unless_the_rule_says_so(
    no_data: NoData, hold: int, keep: int, history: list[tuple[Finding, int]]
) -> None:
    silent = [(Finding.SILENT if finding is Finding.CLEAR else finding, wait) for finding, wait in history]
    states = [name_of(after) for _, _, after, _, _ in walk(Policy(hold, keep, no_data), silent)]
    if "firing" in states:
        assert set(states[states.index("firing") :]) == {"firing"}


@given(POLICIES, HISTORY)
@many
def test_an_alert_fires_only_after_its_for_and_while_the_condition_holds(
    policy: Policy, history: list[tuple[Finding, int]]
) -> None:
    since = None
    for before, finding, after, _, now in walk(policy, history):
        holds = finding is Finding.HOLDS or (finding is Finding.SILENT and policy.no_data == "alert")
        if before is None and after is not None:
            since = now
        if name_of(before) != "firing" and after is not None and after.fired_at is not None:
            assert holds
            assert since is not None
            assert now - since >= policy.hold
            assert (after.active_at, after.fired_at) == (since, now)


@given(POLICIES, HISTORY)
@many
def test_few_samples_change_nothing(policy: Policy, history: list[tuple[Finding, int]]) -> None:
    for before, finding, after, reason, _ in walk(policy, history):
        if finding is Finding.FEW:
            assert (after, reason) == (before, Reason.FEW_SAMPLES)


@given(POLICIES, HISTORY)
@many
def test_keep_firing_for_is_kept_since_the_condition_was_last_met(
    policy: Policy, history: list[tuple[Finding, int]]
) -> None:
    clear_since = None
    for before, finding, after, _, now in walk(policy, history):
        if finding is Finding.CLEAR:
            clear_since = now if clear_since is None or name_of(before) != "firing" else clear_since
        elif finding in (Finding.HOLDS, Finding.BETWEEN):
            clear_since = None
        if name_of(before) == "firing" and after is None and finding is Finding.CLEAR:
            assert clear_since is not None
            assert now - clear_since >= policy.keep_firing or policy.no_data == "ok"


@given(POLICIES, HISTORY)
@many
def test_a_condition_without_more_is_as_in_prometheus(policy: Policy, history: list[tuple[Finding, int]]) -> None:
    """With results alone, there or not there, the states are those of Prometheus' Eval, written down anew here."""
    plain = Policy(policy.hold, policy.keep_firing)
    active: dict[str, int | None] | None = None
    two_valued = [
        (Finding.HOLDS if finding in (Finding.HOLDS, Finding.FEW) else Finding.CLEAR, wait) for finding, wait in history
    ]
    for _, finding, after, _, ts in walk(plain, two_valued):
        if finding is Finding.HOLDS:
            if active is None:
                active = {"active_at": ts, "fired_at": None, "keep_firing_since": None}
            active["keep_firing_since"] = None
            active_at = active["active_at"]
            assert active_at is not None
            if active["fired_at"] is None and ts - active_at >= plain.hold:
                active["fired_at"] = ts
        elif active is not None:
            keep = False
            if active["fired_at"] is not None and plain.keep_firing > 0:
                kept_since = active["keep_firing_since"]
                active["keep_firing_since"] = kept_since = ts if kept_since is None else kept_since
                keep = ts - kept_since < plain.keep_firing
            if not keep:
                active = None
        shown = (
            None
            if after is None
            else {"active_at": after.active_at, "fired_at": after.fired_at, "keep_firing_since": after.kept_since}
        )
        assert shown == active


@given(POLICIES, st.integers(1, 10 * MINUTE))
@many
def test_a_clock_that_is_set_back_makes_for_begin_again(policy: Policy, back: int) -> None:
    state, _ = step(None, Finding.HOLDS, policy, 1_000 * MINUTE)
    after, _ = step(state, Finding.HOLDS, policy, 1_000 * MINUTE - back)
    assert after is not None
    if name_of(state) == "pending":
        assert after.active_at == 1_000 * MINUTE - back


def test_recover_holds_an_alert_between_its_two_thresholds() -> None:
    policy = Policy(recovers=True)
    firing, _ = step(None, Finding.HOLDS, policy, 0)
    still, reason = step(firing, Finding.BETWEEN, policy, MINUTE)
    assert (name_of(still), reason) == ("firing", Reason.NOT_RECOVERED)
    over, reason = step(still, Finding.CLEAR, policy, 2 * MINUTE)
    assert (over, reason) == (None, Reason.RECOVERED)
