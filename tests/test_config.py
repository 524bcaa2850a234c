"""Every wrong setting is named, all at once, and an unknown one with what was meant."""

from pathlib import Path

import pytest

from modelmeter.config import Config, read_config
from modelmeter.errors import WrongSetting


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415

    for name in list(os.environ):
        if name.startswith("MODELMETER_"):
            monkeypatch.delenv(name)


def test_every_setting_has_a_default_and_a_help_line() -> None:
    config = read_config()
    assert (config.host, config.port, config.database_url, config.rules) == ("127.0.0.1", 8000, "", None)
    assert all(field.description and field.description.endswith(".") for field in Config.model_fields.values())
    assert all(not field.is_required() for field in Config.model_fields.values())


def test_the_command_line_is_over_the_environment_and_none_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELMETER_PORT", "9000")
    assert read_config().port == 9000
    assert read_config(port=None).port == 9000
    assert read_config(port=9001).port == 9001


def test_all_wrong_settings_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELMETER_PORT", "no")
    monkeypatch.setenv("MODELMETER_STREAM_LIMIT", "0")
    monkeypatch.setenv("MODELMETER_LOG_LEVEL", "loud")
    monkeypatch.setenv("MODELMETER_PROT", "1")
    with pytest.raises(WrongSetting) as caught:
        read_config(rules=Path("/nowhere/rules.yaml"), host=None)
    lines = caught.value.detail.splitlines()
    assert len(lines) == 5
    for part in ("port", "stream_limit", "log_level", "no file /nowhere/rules.yaml", "did you mean MODELMETER_PORT?"):
        assert sum(part in line for line in lines) == 1, part
    assert "given: 'no'" in caught.value.detail


@pytest.mark.parametrize(
    ("name", "meant"),
    [("MODELMETER_DATABSE_URL", "MODELMETER_DATABASE_URL"), ("MODELMETER_HOSTS", "MODELMETER_HOST")],
)
def test_an_unknown_setting_is_refused_with_what_was_meant(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(WrongSetting, match=f"{name}: unknown setting; did you mean {meant}"):
        read_config()


def test_names_of_others_and_of_tests_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELMETER_TEST_DATABASE_URL", "x")
    monkeypatch.setenv("MODELMETERS", "x")
    assert read_config() == Config()


def test_a_setting_that_is_not_one_is_refused() -> None:
    with pytest.raises(WrongSetting, match="prot"):
        read_config(prot=1)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_config().port = 1  # type: ignore[misc]
