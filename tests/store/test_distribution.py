"""What `migrate --distribute` says on a single Postgres. On Citus: tests/citus."""

import pytest
from typer.testing import CliRunner

from modelmeter.cli import app
from modelmeter.errors import WrongSetting
from modelmeter.store.distribution import distribute


def test_without_citus_it_says_what_is_missing_and_changes_nothing(database_url: str) -> None:
    with pytest.raises(WrongSetting, match=r"citus is not in this database; .* CREATE EXTENSION citus"):
        distribute(database_url, shards=4)
    again = CliRunner().invoke(app, ["migrate", "--database-url", database_url])
    assert again.output == "the schema is up to date\n"
    asked = CliRunner().invoke(app, ["migrate", "--database-url", database_url, "--distribute"])
    assert isinstance(asked.exception, WrongSetting)
