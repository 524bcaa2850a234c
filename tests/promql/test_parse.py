"""What does not parse, and in whose words; the grammar that is ours."""

import pytest

from modelmeter.promql import BadQuery, format_query, parse, parse_selector
from modelmeter.promql.expression import Binary, Call, MatrixSelector, Negation, NumberLiteral, VectorSelector, kind_of
from modelmeter.window import DAY, MINUTE, SECOND


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "no expression found in input"),
        ("# only a comment", "no expression found in input"),
        ("sum(a", "unclosed left parenthesis"),
        ("rate(a)", 'expected type range vector in call to function "rate", got instant vector'),
        ("abs(a[5m])", "expected type"),
        ("topk(a, b)", "expected type scalar"),
        ("count_values(x, a)", "expected type string"),
        ("nonsense(a)", 'unknown function with name "nonsense"'),
        ("1 > 2", "comparisons between scalars must use BOOL modifier"),
        ("a + bool b", "bool modifier can only be used on comparison operators"),
        ("a and 1", "not allowed in binary scalar expression"),
        ("a and on(x) group_left b", "no grouping allowed"),
        ("a + on(x) group_left(x) b", "must not occur in ON and GROUP clause at once"),
        ("a or fill(1) b", "filling in missing series not allowed for set operators"),
        ("a + fill(1) 2", "filling in missing series only allowed between instant vectors"),
        ("a + on(x) 2", "vector matching only allowed between"),
        ('"x" + 1', "binary expression must contain only scalar and instant vector types"),
        ('-"x"', "unary expression only allowed"),
        ("{}", "at least one non-empty matcher"),
        ('{x=~".*"}', "at least one non-empty matcher"),
        ('a{__name__="b"}', "metric name must not be set twice"),
        ('a{x=~"("}', "illegal regex"),
        ('a{x="1" or y="2"}', 'unexpected "or" in label matching'),
        ("a[5m][5m:]", "subquery is only allowed on"),
        ("a[0s]", "duration must be greater than 0"),
        ("a offset 1m offset 2m", "offset may not be set multiple times"),
        ("a @ 1 @ 2", "may not be set multiple times"),
        ("a @ inf", "timestamp out of bounds for @ modifier"),
        ("a @ 253402300800", "timestamp out of bounds for @ modifier"),
        ("histogram_count(a)", "native histograms"),
        ("info(a)", "info() is not supported"),
        ("psi(a[5m])", "expected at least 2 argument(s)"),
        ("psi(a, b)", "expected type range vector"),
        ("psi(a[5m], b[5m], 3)", "expected type string"),
    ],
)
def test_a_query_that_does_not_fit_is_bad_data(query: str, message: str) -> None:
    with pytest.raises(BadQuery) as caught:
        parse(query)
    assert message in caught.value.detail
    assert caught.value.kind == "bad_data"
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "query",
    [
        "(" * 50_000 + "1" + ")" * 50_000,
        "1" + "+1" * 50_000,
        "-" * 50_000 + "a",
        "a" + " or a" * 50_000,
        "2" + "^2" * 50_000,
        "1" + "+1" * 499,
    ],
    ids=["parentheses", "sum", "minus", "or", "power", "at the limit"],
)
def test_no_depth_of_nesting_takes_the_process_down(query: str) -> None:
    try:
        parse(query)
    except BadQuery as error:
        assert "parse error" in error.detail  # noqa: PT017


def test_operators_inside_strings_and_comments_do_not_count_as_nesting() -> None:
    assert isinstance(parse('a{x="' + "(" * 1000 + '"} # ' + "(" * 1000), VectorSelector)


def test_power_binds_tighter_than_minus_and_to_the_right() -> None:
    assert isinstance(parse("-1 ^ 2"), Negation)
    power = parse("2 ^ 3 ^ 2")
    assert isinstance(power, Binary)
    assert power.left == NumberLiteral(2)


def test_durations_may_be_numbers_and_numbers_durations() -> None:
    selector = parse("a[300] offset 1d")
    assert isinstance(selector, MatrixSelector)
    assert (selector.range, selector.vector.offset) == (5 * MINUTE, DAY)
    assert parse("1h30m") == NumberLiteral(5400)


def test_an_at_modifier_is_an_instant_or_an_end_of_the_query() -> None:
    found = [parse(query) for query in ("a @ 1.5", "a @ start()", "a @ end()")]
    assert [one.at for one in found if isinstance(one, VectorSelector)] == [1_500_000, "start", "end"]


def test_quoted_names_are_names() -> None:
    selector = parse('{"a.b", "c.d"="e"}')
    assert isinstance(selector, VectorSelector)
    assert [(one.name, one.value) for one in selector.matchers] == [("__name__", "a.b"), ("c.d", "e")]


@pytest.mark.parametrize("function", ["psi", "ks", "js", "wasserstein"])
def test_drift_functions_take_two_ranges_and_labels_to_ignore(function: str) -> None:
    call = parse(f'{function}(a[1h], b[1h:1m] offset 1d, "version", "env")')
    assert isinstance(call, Call)
    assert kind_of(call) == "vector"
    assert len(call.arguments) == 4


def test_a_query_is_formatted_as_prometheus_formats_it() -> None:
    assert format_query("sum(rate(a[5m]))by(x)") == "sum by (x) (rate(a[5m]))"


def test_a_series_selector_gives_its_matchers() -> None:
    assert [str(one) for one in parse_selector('up{job=~"a|b"}')] == ["job=~'a|b'", "__name__='up'"]
    for text in ("rate(a[5m])", "a[5m]", "a offset 5m", "1"):
        with pytest.raises(BadQuery):
            parse_selector(text)


def test_ranges_are_whole_microseconds() -> None:
    selector = parse("a[1ms]")
    assert isinstance(selector, MatrixSelector)
    assert selector.range == SECOND // 1000
