"""Where an alert goes: as Alertmanager says, by amtool's own word on random trees."""

import json
import random
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytest

from modelmeter.config import Config
from modelmeter.notify.file import read_notifications
from modelmeter.routing import Route, format_labels

LABELS = {"severity": ["critical", "warning"], "env": ["prod", "staging", ""], "name": ["A", "B", "C d"]}
TREES, ALERTS = 12, 8


def random_matcher(dice: random.Random) -> str:
    label = dice.choice([*LABELS])
    value = dice.choice(LABELS[label])
    return dice.choice(
        [
            f'{label}="{value}"',
            f'{label}!="{value}"',
            f'{label}=~"{value[:1]}.*|x"',
            f'{label}!~"({value}|x)"',
            f"{label}=~.+",
        ]
    )


def random_route(dice: random.Random, depth: int) -> dict[str, Any]:
    route: dict[str, Any] = {"matchers": [random_matcher(dice) for _ in range(dice.randint(1, 2))]}
    if dice.random() < 0.8:
        route["receiver"] = f"r{dice.randint(0, 9)}"
    if dice.random() < 0.4:
        route["continue"] = True
    if depth and dice.random() < 0.6:
        route["routes"] = [random_route(dice, depth - 1) for _ in range(dice.randint(1, 3))]
    return route


def read(path: Path) -> Route:
    return read_notifications(Config(notifications=path)).route


def test_amtool_sends_every_alert_where_we_do(tmp_path: Path) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    file = tmp_path / "n.yml"
    for _ in range(TREES):
        root = {"receiver": "r0", "routes": [random_route(dice, 2) for _ in range(4)]}
        receivers = [{"name": f"r{number}"} for number in range(10)]
        file.write_text(json.dumps({"route": root, "receivers": receivers}))
        route = read(file)
        for _ in range(ALERTS):
            labels = {label: value for label in LABELS if (value := dice.choice(LABELS[label]))}
            asked = subprocess.run(
                ["amtool", "config", "routes", "test", f"--config.file={file}"]
                + [f'{label}="{value}"' for label, value in labels.items()],
                capture_output=True,
                text=True,
                check=True,
            )
            said = asked.stdout.strip().split(",")
            ours = [one.receiver for one in route.match(labels)]
            assert ours == said, f"seed {seed}: {labels} in {file.read_text()}"


def tree(tmp_path: Path, **root: Any) -> Route:
    file = tmp_path / "n.yml"
    receivers = [{"name": name} for name in "abc"]
    file.write_text(json.dumps({"route": {"receiver": "a", **root}, "receivers": receivers}))
    return read(file)


def test_a_child_inherits_what_it_does_not_say(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        group_by=["x"],
        group_wait="1s",
        repeat_interval="2h",
        routes=[{"match": {"k": "1"}, "routes": [{"match_re": {"l": "2|3"}, "group_by": ["..."], "receiver": "b"}]}],
    )
    (grandchild,) = root.match({"k": "1", "l": "3"})
    assert (grandchild.receiver, grandchild.group_by) == ("b", None)
    assert (grandchild.timing.group_wait, grandchild.timing.repeat_interval) == (1_000_000, 7_200_000_000)
    assert grandchild.timing.group_interval == 300_000_000
    (child,) = root.match({"k": "1"})
    assert (child.receiver, child.group_by) == ("a", ("x",))


def test_keys_tell_routes_apart_even_with_the_same_matchers(tmp_path: Path) -> None:
    same = {"matchers": ['k="1"'], "continue": True}
    root = tree(tmp_path, routes=[{**same, "receiver": "b"}, {**same, "receiver": "c"}, same])
    keys = [route.key for route in root.walk()]
    assert keys == ["{}", '{}/{k="1"}', '{}/{k="1"}/1', '{}/{k="1"}/2']


def test_groups_hold_alerts_that_agree_in_the_labels_of_group_by() -> None:
    labels = {"b": "2", "a": '1"', "c": "3"}
    assert Route("{}", "r", group_by=("a", "z")).group_labels(labels) == {"a": '1"'}
    assert Route("{}", "r", group_by=()).group_labels(labels) == {}
    assert Route("{}", "r", group_by=None).group_labels(labels) == labels
    assert format_labels(labels) == r'{a="1\"",b="2",c="3"}'


def test_two_labels_never_make_one_group_key() -> None:
    assert format_labels({"a": '1",b="2'}) != format_labels({"a": "1", "b": "2"})


@pytest.mark.parametrize("goes_on", [True, False])
def test_continue_reaches_the_next_routes(tmp_path: Path, goes_on: bool) -> None:
    root = tree(
        tmp_path,
        routes=[
            {"matchers": ["k=1"], "receiver": "b", "continue": goes_on},
            {"matchers": ["k=~.+"], "receiver": "c"},
        ],
    )
    assert [route.receiver for route in root.match({"k": "1"})] == (["b", "c"] if goes_on else ["b"])
    assert [route.receiver for route in root.match({})] == ["a"]
