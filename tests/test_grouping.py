"""A group tells what is new, once; repeats what goes on; and withholds nothing for ever."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmeter.grouping import Decision, Group, Member, Why, Withheld, begin, decide
from modelmeter.notification import Alert
from modelmeter.routing import Timing
from modelmeter.window import HOUR, MINUTE, SECOND
from tests.history import NOON

TIMING = Timing(30 * SECOND, 5 * MINUTE, 4 * HOUR)


def member(key: str, *, ends_at: int | None = None, told: bool = False, event: bool = False) -> Member:
    return Member(key, Alert(key, {"alertname": key}, {}, 1.0, "", NOON, ends_at, event=event), told)


def look(*members: Member, told_at: int | None = None, now: int = NOON, **withheld: Withheld) -> Decision:
    return decide(Group(NOON, told_at), members, TIMING, now, withheld)


def told(decision: Decision) -> list[tuple[str, str]]:
    return [(alert.fingerprint, alert.status) for alert in decision.tell]


@pytest.mark.parametrize(
    ("members", "told_at", "why", "tells"),
    [
        ([member("a")], None, Why.NEW_ALERT, [("a", "firing")]),
        ([member("a", told=True), member("b")], NOON - 1, Why.NEW_ALERT, [("a", "firing"), ("b", "firing")]),
        ([member("a", told=True)], NOON - HOUR, Why.NOTHING_NEW, []),
        ([member("a", told=True)], NOON - 4 * HOUR, Why.REPEAT, [("a", "firing")]),
        ([member("a", told=True, ends_at=NOON)], NOON - 1, Why.ALL_RESOLVED, [("a", "resolved")]),
        (
            [member("a", told=True, ends_at=NOON), member("b", told=True)],
            NOON - 1,
            Why.SOME_RESOLVED,
            [("b", "firing"), ("a", "resolved")],
        ),
        ([member("a", ends_at=NOON)], None, Why.EMPTY, []),
        ([member("e", event=True)], None, Why.EVENT, [("e", "firing")]),
        ([], NOON - HOUR, Why.EMPTY, []),
    ],
)
def test_each_decision_has_its_reason(
    members: list[Member], told_at: int | None, why: Why, tells: list[tuple[str, str]]
) -> None:
    decision = look(*members, told_at=told_at)
    assert (decision.why, told(decision)) == (why, tells)
    assert decision.group.flush_at == NOON + TIMING.group_interval


def test_before_its_time_a_group_does_nothing() -> None:
    one = member("a")
    decision = decide(Group(NOON + 1), [one], TIMING, NOON, {})
    assert decision == Decision(Why.NOT_DUE, Group(NOON + 1), (one,))


def test_a_new_group_waits_but_not_for_what_is_long_known() -> None:
    assert begin(NOON, NOON, TIMING).flush_at == NOON + 30 * SECOND
    assert begin(NOON - 20 * SECOND, NOON, TIMING).flush_at == NOON + 10 * SECOND
    assert begin(NOON - HOUR, NOON, TIMING).flush_at == NOON
    assert begin(NOON + HOUR, NOON, TIMING).flush_at == NOON + 30 * SECOND, "a clock that was set back"


def test_what_is_withheld_is_told_when_it_no_longer_is() -> None:
    first = look(member("a"), a=Withheld.SILENCED)
    assert (first.why, first.tell) == (Why.WITHHELD, ())
    after = decide(first.group, first.members, TIMING, first.group.flush_at, {})
    assert told(after) == [("a", "firing")]


def test_a_withheld_resolution_of_what_was_told_is_told_later_and_of_what_was_not_never() -> None:
    first = look(member("a", told=True, ends_at=NOON), member("b", ends_at=NOON), a=Withheld.MUTED, b=Withheld.MUTED)
    assert [one.key for one in first.members] == ["a"]
    after = decide(first.group, first.members, TIMING, first.group.flush_at, {})
    assert told(after) == [("a", "resolved")]
    assert after.is_over


def test_an_event_that_is_withheld_is_over() -> None:
    decision = look(member("e", event=True), e=Withheld.INHIBITED)
    assert (decision.tell, decision.is_over) == ((), True)


STEPS = st.lists(
    st.tuples(st.sampled_from(["fire", "resolve", "event", "withhold", "allow", "wait"]), st.sampled_from("abc")),
    max_size=60,
)


@given(steps=STEPS)
def test_whatever_happens_nothing_is_told_twice_without_cause_nor_lost(steps: list[tuple[str, str]]) -> None:
    """The receiver's picture follows the truth: what it was told last of each alert is what holds, once a group may
    tell; in between, no message without something new unless it repeats.
    """
    now, number = NOON, 0
    group: Group | None = None
    members: dict[str, Member] = {}
    firing: set[str] = set()
    withheld: dict[str, Withheld] = {}
    picture: dict[str, str] = {}
    events_told: list[str] = []
    events: dict[str, bool] = {}  # by key: whether it was withheld when the group looked

    def flush() -> None:
        nonlocal group, members, now
        if group is None:
            return
        now = max(now, group.flush_at)
        before = dict(picture)
        hidden = {key: why for key, why in withheld.items() if key in members}
        hidden |= {key: withheld[key[0]] for key in members if key[0] in withheld and key[0] != key}
        decision = decide(group, list(members.values()), TIMING, now, hidden)
        for alert in decision.tell:
            assert alert.fingerprint not in hidden
            if alert.event:
                events_told.append(alert.fingerprint)
            else:
                picture[alert.fingerprint] = alert.status
        for key in list(events):
            if key in members and key in hidden:
                events[key] = True
        if decision.why in (Why.NEW_ALERT, Why.SOME_RESOLVED, Why.ALL_RESOLVED):
            assert picture != before, "it told without anything new"
        if decision.why is Why.REPEAT:
            assert group.told_at is not None
            assert now - group.told_at >= TIMING.repeat_interval
        if not decision.tell:
            assert picture == before
        members = {one.key: one for one in decision.members}
        group = None if decision.is_over else decision.group
        for key, one in members.items():
            assert one.told == (picture.get(key) == "firing"), "the group remembers what it told"

    for action, key in steps:
        if action == "fire":
            firing.add(key)
            group = group or begin(now, now, TIMING)
            members[key] = replace(member(key), told=key in members and members[key].told)
        elif action == "resolve":
            firing.discard(key)
            if key in members:
                members[key] = replace(member(key, ends_at=now), told=members[key].told)
        elif action == "event":
            number += 1
            group = group or begin(now, now, TIMING)
            members[f"{key}{number}"] = member(f"{key}{number}", event=True)
            events[f"{key}{number}"] = False
        elif action == "withhold":
            withheld[key] = Withheld.SILENCED
        elif action == "allow":
            withheld.pop(key, None)
        else:
            flush()
    withheld.clear()
    flush()
    assert {key for key, status in picture.items() if status == "firing"} == firing
    assert events_told == [key for key in events if not events[key]]
