"""The notifications file is refused whole, with file, line and reason; no secret stands in it, and none is shown."""

import traceback
from pathlib import Path

import pytest

from modelmeter.config import Config
from modelmeter.errors import WrongSetting
from modelmeter.notify.alertmanager import Alertmanager
from modelmeter.notify.current import CurrentNotifications
from modelmeter.notify.file import Notifications, log_only, read_notifications
from modelmeter.notify.webhook import Webhook
from modelmeter.window import SECOND

SECRET = "s3cr3t-s3cr3t"
EXAMPLE = Path(__file__).parents[2] / "src/modelmeter/examples/notifications.yml"
GOOD = """\
route:
  receiver: team
  routes:
    - matchers: [severity="critical"]
      mute_time_intervals: [nights]
receivers:
  - name: team
    webhook_configs:
      - url: http://127.0.0.1/hook
inhibit_rules:
  - source_matchers: [severity="critical"]
    target_matchers: [severity="warning"]
    equal: [name]
time_intervals:
  - name: nights
    time_intervals:
      - times: [{start_time: '22:00', end_time: '24:00'}]
"""


def read(tmp_path: Path, text: str, **environment: str) -> Notifications:
    file = tmp_path / "n.yml"
    file.write_text(text)
    return read_notifications(Config(notifications=file), environment)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("receiver: team", "reciever: team", 2, "a route has no field 'reciever'; did you mean receiver?"),
        ("receiver: team", "receiver: teem", 2, "there is no receiver 'teem'; did you mean team?"),
        ("  receiver: team\n", "  group_by: [a]\n", 2, "the first route needs a receiver"),
        ("receiver: team", "receiver: team\n  matchers: [a=b]", 3, "the first route takes everything: matchers"),
        ("receiver: team", "receiver: team\n  group_wait: soon", 3, "group_wait: 'soon' is no duration"),
        ("receiver: team", "receiver: team\n  group_interval: 0s", 3, "group_interval must be more than 0"),
        ("receiver: team", "receiver: team\n  group_by: ['...', a]", 3, "'...' is all labels"),
        ("receiver: team", "receiver: team\n  group_by: [a, a]", 3, "a label stands twice"),
        ("receiver: team", "receiver: team\n  receiver: team", 3, "receiver stands twice"),
        ('[severity="critical"]\n      mute', "['severity']\n      mute", 4, "is no =, !=, =~ or !~"),
        ('[severity="critical"]\n      mute', "['a=~\"(\"']\n      mute", 4, "invalid regular expression"),
        ("[nights]", "[night]", 5, "there is no time interval 'night'; did you mean nights?"),
        ("    - matchers", "    - continue: maybe\n      matchers", 4, "continue must be true or false"),
        ("webhook_configs", "webhok_configs", 8, "did you mean webhook_configs?"),
        ("webhook_configs", "slack_configs", 8, "slack_configs: not a destination .* use apprise_configs"),
        ("url: http://127.0.0.1/hook", "url: 127.0.0.1/hook", 9, "this is no http:// or https:// address"),
        ("url: http://127.0.0.1/hook", "max_alerts: 3", 9, "a webhook needs url, or url_env or url_file"),
        ("/hook", "/hook\n        max_alerts: -1", 10, "max_alerts must be a number"),
        ("/hook", "/hook\n        timeout: 5", 10, "timeout: '5' is no duration"),
        ("/hook", f"/hook\n        secret: {SECRET}", 10, "write secret_env: ITS_NAME"),
        ("/hook", f"/hook\n        bearer: {SECRET}", 10, "write bearer_env: ITS_NAME"),
        ("/hook", f"/hook\n        password: {SECRET}", 10, "write bearer_env: ITS_NAME"),
        ("/hook", "/hook\n        secret_env: NOT_THERE", 10, "the environment has no NOT_THERE"),
        ("/hook", "/hook\n        secret_file: not/there", 10, "No such file"),
        ("/hook", "/hook\n        url_env: X", 10, "url and url_env: give one of them"),
        ("http://127", f"http://user:{SECRET}@127", 9, "it holds a secret; .* write url_env"),
        ("/hook", f"/hook?token={SECRET}", 9, "it holds a secret"),
        ("127.0.0.1/hook", f"hooks.slack.com/services/{SECRET}", 9, "it holds a secret"),
        ("  - name: team\n", "  - name: team\n  - name: team\n", 8, "the receiver 'team' stands twice"),
        ('    target_matchers: [severity="warning"]\n', "", 11, "needs source_matchers and target_matchers"),
        ("  - name: nights\n    time_intervals:", "  - time_intervals:", 15, "a time interval needs a name"),
        ("'22:00'", "'22'", 17, "'22' is no time of day"),
        (", end_time: '24:00'", "", 17, "needs start_time and end_time"),
        ("      - times", "      - location: Mars/North\n        times", 17, "there is no time zone 'Mars/North'"),
        ("inhibit_rules", "inhibit_rule", 10, "did you mean inhibit_rules?"),
        ("route:\n", "global: {}\nroute:\n", 1, "global: not needed"),
        ("receiver: team", "receiver: [", 4, "not YAML"),
        ("receivers:", "routes:", 6, "the file has no field 'routes'; did you mean route"),
    ],
)  # fmt: skip
def test_each_mistake_names_its_line_and_the_way_out(
    tmp_path: Path, old: str, new: str, line: int, reason: str
) -> None:
    assert read(tmp_path, GOOD).route.receiver == "team"
    with pytest.raises(WrongSetting, match=reason) as refused:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert refused.value.detail.startswith(f"{tmp_path / 'n.yml'}:{line}: ")
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "the file is empty"), ("route: {receiver: a}", "needs receivers"), ("[]", "must be a mapping")],
)
def test_a_file_without_what_it_needs_says_so(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(WrongSetting, match=reason):
        read(tmp_path, text)


def test_the_example_can_be_used_and_is_the_one_in_the_page() -> None:
    found = read_notifications(Config(notifications=EXAMPLE))
    assert {*found.receivers} == {"log", "oncall", "team"}
    page = (Path(__file__).parents[2] / "docs/notifications.md").read_text()
    shown = page.split("```yaml\n")[1].split("```")[0]
    environment = {"ALERTS_SECRET": SECRET, "TEAM_SLACK_URL": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"}
    config = Config(notifications=EXAMPLE)
    documented = read_notifications(config, environment, shown)
    assert documented.inhibit_rules == found.inhibit_rules
    assert documented.time_intervals == found.time_intervals
    assert [route.key for route in documented.route.walk()] == [route.key for route in found.route.walk()]


def test_secrets_come_from_the_environment_or_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    text = GOOD.replace(
        "url: http://127.0.0.1/hook",
        "url_env: HOOK\n        secret_env: SIGN\n        bearer_file: token\n        timeout: 3s\n"
        "        max_alerts: 7\n        send_resolved: false",
    )
    found = read(tmp_path, text, HOOK=f"https://hooks.slack.com/{SECRET}", SIGN=f"{SECRET}2")
    assert found.receivers["team"] == (
        Webhook(
            "team/webhook/0",
            f"https://hooks.slack.com/{SECRET}",
            f"{SECRET}2",
            SECRET,
            send_resolved=False,
            alert_limit=7,
            timeout_seconds=3,
        ),
    )
    assert found.sources == (tmp_path / "n.yml", tmp_path / "token")
    assert SECRET not in repr(found)


def test_alertmanager_and_log_are_destinations_with_what_they_do_not_say_filled_in(tmp_path: Path) -> None:
    text = GOOD.replace("webhook_configs", "log_configs: [{}, {send_resolved: false}]\n    alertmanager_configs")
    found = read(tmp_path, text).destinations()
    assert {*found} == {"team/log/0", "team/log/1", "team/alertmanager/0"}
    one = found["team/alertmanager/0"]
    assert isinstance(one, Alertmanager)
    assert (one.resend_interval, one.timeout_seconds, one.send_resolved) == (60 * SECOND, 15, True)
    assert not found["team/log/1"].send_resolved


def test_without_a_file_everything_goes_to_the_log_at_once() -> None:
    found = read_notifications(Config())
    assert found == log_only()
    assert found.route.timing.group_wait == 0


def test_a_secret_that_changes_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first-token")
    file = tmp_path / "n.yml"
    file.write_text(GOOD.replace("/hook", "/hook\n        bearer_file: token"))
    current = CurrentNotifications(Config(notifications=file))
    assert not current.refresh()
    (tmp_path / "token").write_text("second-token")
    assert current.refresh()
    (one,) = current.now.receivers["team"]
    assert isinstance(one, Webhook)
    assert one.bearer == "second-token"
    (tmp_path / "token").unlink()
    assert not current.refresh()
    assert current.now.receivers["team"] == (one,)
