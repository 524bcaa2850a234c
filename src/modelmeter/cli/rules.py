"""`modelmeter rules`: what concerns rule files."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

rules_app = typer.Typer(no_args_is_help=True, help="The rules file: an example, and a check before it is used.")


@rules_app.command("example")
def example_rules() -> None:
    """Print an example: modelmeter rules example > rules.yml"""
    print((files("modelmeter") / "examples" / "rules.yml").read_text("utf-8"), end="")


@rules_app.command("check")
def check_rules(file: Annotated[Path, typer.Argument(help="The rules file.")]) -> None:
    """Read a rules file as the server would: exit 0 if it can be used, else 2 with line and reason."""
    from modelmeter.rule import read_rules  # noqa: PLC0415

    for rule in read_rules(file):
        print(f"{rule.name}: {rule.words}")
