"""A warning is not told while its critical twin fires; silences and matchers suit what they say."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmeter.inhibition import Inhibitor, InhibitRule
from modelmeter.matcher import Matcher, format_matcher, parse_matchers
from modelmeter.silence import Silence, State, check
from tests.history import NOON

TWIN = InhibitRule(parse_matchers('severity="critical"'), parse_matchers('severity="warning"'), ("name", "version"))


def test_a_warning_is_inhibited_by_its_critical_twin_only() -> None:
    inhibitor = Inhibitor([TWIN], [{"severity": "critical", "name": "A"}])
    assert inhibitor.inhibits({"severity": "warning", "name": "A"})
    assert not inhibitor.inhibits({"severity": "warning", "name": "B"})
    assert not inhibitor.inhibits({"severity": "warning", "name": "A", "version": "v1"}), "absent is not v1"
    assert not inhibitor.inhibits({"severity": "critical", "name": "A"}), "it is no target"
    assert not Inhibitor([TWIN], []).inhibits({"severity": "warning", "name": "A"})


def test_one_that_is_source_and_target_is_not_inhibited_by_another_such() -> None:
    both = InhibitRule(parse_matchers('a="1"'), parse_matchers('b="1"'))
    two_sided, source = {"a": "1", "b": "1"}, {"a": "1"}
    assert not Inhibitor([both], [two_sided]).inhibits(two_sided)
    assert Inhibitor([both], [source]).inhibits(two_sided)
    assert Inhibitor([both], [two_sided]).inhibits({"b": "1"})


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2"]), max_size=3)
MATCHERS = st.lists(
    st.builds(Matcher, st.sampled_from("abc"), st.sampled_from(["=", "!="]), st.sampled_from(["1", "2", ""])),
    min_size=1,
    max_size=2,
)


@given(
    st.lists(
        st.builds(InhibitRule, MATCHERS.map(tuple), MATCHERS.map(tuple), st.sampled_from([(), ("a",), ("a", "c")])),
        max_size=3,
    ),
    st.lists(LABELS, max_size=6),
    LABELS,
)
def test_the_inhibitor_is_what_looking_at_every_alert_says(
    rules: list[InhibitRule], firing: list[dict[str, str]], labels: dict[str, str]
) -> None:
    slow = any(
        rule.is_target(labels)
        and rule.is_source(source)
        and all(source.get(name, "") == labels.get(name, "") for name in rule.equal)
        and not (rule.is_source(labels) and rule.is_target(source))
        for rule in rules
        for source in firing
    )
    assert Inhibitor(rules, firing).inhibits(labels) == slow


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=b", [("a", "=", "b")]),
        ('{a="b", c=~"d|e,f"}', [("a", "=", "b"), ("c", "=~", "d|e,f")]),
        (r'a!="q\"\\\n"', [("a", "!=", 'q"\\\n')]),
        (' a !~ "x" ', [("a", "!~", "x")]),
        ('"data-center"="x"', [("data-center", "=", "x")]),
        ("a=", [("a", "=", "")]),
        ("", []),
        ("{}", []),
    ],
)
def test_matchers_are_read(text: str, found: list[tuple[str, str, str]]) -> None:
    assert [(one.name, one.operator, one.value) for one in parse_matchers(text)] == found


@pytest.mark.parametrize("text", ["a", 'a=b=c"', '="b"', 'a="b" c="d"', 'a=~"("', "a==b}", '{a="b"'])
def test_what_is_no_matcher_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it like|regular expression"):
        parse_matchers(text)


@given(
    st.text("ab_.", min_size=1).filter(lambda name: name[0] in "ab_"),
    st.sampled_from(["=", "!="]),
    st.text(max_size=20),
)
def test_a_matcher_is_read_as_it_is_written(name: str, operator: str, value: str) -> None:
    matcher = Matcher(name, operator, value)  # type: ignore[arg-type]
    assert parse_matchers("{" + format_matcher(matcher) + "," + format_matcher(matcher) + "}") == (matcher, matcher)


@given(st.sampled_from(["=", "!=", "=~", "!~"]), st.sampled_from(["a", "a|b", "", "a.*"]), LABELS)
def test_one_set_of_labels_is_matched_as_many_are(operator: str, value: str, labels: dict[str, str]) -> None:
    matcher = Matcher("a", operator, value)  # type: ignore[arg-type]
    assert matcher.suits(labels) == matcher.matches([labels.get("a", "")])[0]


def test_a_silence_holds_from_its_start_to_its_end() -> None:
    silence = Silence(UUID(int=1), parse_matchers('name="A"'), "ana", "why", NOON, NOON + 10, NOON)
    assert [silence.state(now) for now in (NOON - 1, NOON, NOON + 9, NOON + 10)] == [
        State.PENDING, State.ACTIVE, State.ACTIVE, State.EXPIRED,
    ]  # fmt: skip
    for now in (NOON - 1, NOON, NOON + 9, NOON + 10):
        assert silence.silences({"name": "A"}, now) == (silence.state(now) is State.ACTIVE)
    assert not silence.silences({"name": "B"}, NOON)


@pytest.mark.parametrize(
    ("matchers", "author", "comment", "end", "field"),
    [
        ("", "a", "b", 1, "matchers"),
        ('a=~".*"', "a", "b", 1, "matchers"),
        ("a=b", " ", "b", 1, "author"),
        ("a=b", "a", "", 1, "comment"),
        ("a=b", "a", "b", 0, "ends_at"),
    ],
)
def test_a_silence_that_makes_no_sense_names_the_field(
    matchers: str, author: str, comment: str, end: int, field: str
) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        check(parse_matchers(matchers), author, comment, NOON, NOON + end)
