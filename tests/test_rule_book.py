"""Rules are read again when their files change; what is wrong is refused whole, and the old rules stay."""

from pathlib import Path

import pytest

from modelmeter import telemetry
from modelmeter.errors import WrongSetting
from modelmeter.rule_book import RuleBook

GROUP = "groups: [{{name: {name}, rules: [{{alert: A, expr: x > {limit}}}]}}]"


def write(path: Path, name: str = "g", limit: int = 1) -> None:
    """As an editor does it: another file takes the place of the old one."""
    fresh = path.with_suffix(".new")
    fresh.write_text(GROUP.format(name=name, limit=limit))
    fresh.replace(path)


def queries(book: RuleBook) -> list[str]:
    return [rule.query for group in book.groups for rule in group.queries]


def test_a_changed_file_is_read_again_and_a_wrong_one_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    write(path)
    book = RuleBook(path)
    book.read()
    assert not book.look()
    write(path, limit=2)
    assert book.look()
    assert queries(book) == ["x > 2"]
    path.write_text("groups: [")
    assert not book.look()
    assert queries(book) == ["x > 2"]
    assert telemetry.RULES_OK._value.get() == 0
    write(path, limit=3)
    assert book.look()
    assert queries(book) == ["x > 3"]
    assert telemetry.RULES_OK._value.get() == 1


def test_a_file_that_is_gone_leaves_the_rules_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    write(path)
    book = RuleBook(path)
    book.read()
    path.unlink()
    assert not book.look()
    assert queries(book) == ["x > 1"]


def test_a_directory_and_a_pattern_name_many_files(tmp_path: Path) -> None:
    write(tmp_path / "a.yml", "a")
    write(tmp_path / "b.yml", "b")
    for path in (tmp_path, tmp_path / "*.yml"):
        book = RuleBook(path)
        book.read()
        assert [group.name for group in book.groups] == ["a", "b"]
    write(tmp_path / "c.yml", "a")
    assert not book.look()
    with pytest.raises(WrongSetting, match=r"stands in .*a\.yml too"):
        RuleBook(tmp_path).read()


def test_a_group_over_http_gives_way_to_a_file_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    write(path, "g", 1)
    book = RuleBook(path)
    book.read()
    assert book.put_stored([("g", "name: g\nrules: [{alert: A, expr: y > 1}]"), ("h", "name: h\nrules: []")])
    assert queries(book) == ["x > 1"]
    assert [group.name for group in book.groups] == ["g", "h"]
    assert book.put_stored([])
    assert [group.name for group in book.groups] == ["g"]
