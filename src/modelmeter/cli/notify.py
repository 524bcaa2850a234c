"""`modelmeter notify`: what concerns the notifications file and its destinations."""

import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from modelmeter.cli.options import Notifications
from modelmeter.config import Config, read_config
from modelmeter.errors import ModelmeterError, WrongSetting

notify_app = typer.Typer(
    no_args_is_help=True,
    help="The notifications file: an example, a check, where an alert goes, a sample to a destination.",
)
File = Annotated[Path, typer.Argument(help="The notifications file.")]


def _config(file: Path | None, *, needed: bool = True) -> Config:
    config = read_config(notifications=file)
    if needed and config.notifications is None:
        raise WrongSetting("notifications: name the file with --notifications or MODELMETER_NOTIFICATIONS")
    return config


@notify_app.command("example")
def print_example() -> None:
    """Print an example: modelmeter notify example > notifications.yml"""
    print((files("modelmeter") / "examples" / "notifications.yml").read_text("utf-8"), end="")


@notify_app.command("check")
def check_file(file: File) -> None:
    """Read a notifications file as the server would: exit 0 if it can be used, else 2 with line and reason."""
    from modelmeter.notify.file import read_notifications  # noqa: PLC0415

    found = read_notifications(_config(file))
    for route in found.route.walk():
        print(f"{route.key} -> {route.receiver}")
    for name, destinations in found.receivers.items():
        print(f"{name}: {', '.join(one.name for one in destinations) or 'nobody'}")


@notify_app.command("routes")
def show_routes(
    labels: Annotated[list[str], typer.Argument(metavar="LABEL=VALUE...", help="The labels of an alert.")],
    notifications: Notifications = None,
) -> None:
    """Where an alert with these labels would go, and with which others it would be told.

    Example: modelmeter notify routes alertname=Drift severity=critical --notifications notifications.yml
    """
    from modelmeter.notify.file import read_notifications  # noqa: PLC0415
    from modelmeter.routing import format_labels  # noqa: PLC0415
    from modelmeter.window import format_duration  # noqa: PLC0415

    wrong = [text for text in labels if "=" not in text]
    if wrong:
        raise WrongSetting(f"labels: {wrong[0]!r} is no LABEL=VALUE")
    wanted = dict(text.split("=", 1) for text in labels)
    found = read_notifications(_config(notifications))
    for route in found.route.match(wanted):
        timing = route.timing
        print(f"{route.receiver}")
        print(f"  route {route.key}, group {format_labels(route.group_labels(wanted))}")
        print(
            f"  first after {format_duration(timing.group_wait)}, "
            f"then at most every {format_duration(timing.group_interval)}, "
            f"again every {format_duration(timing.repeat_interval)}"
        )
        for word, names in (("muted in", route.mute), ("active only in", route.active)):
            if names:
                print(f"  {word} {', '.join(names)}")
        for destination in found.receivers[route.receiver]:
            print(f"  to {destination.name}")


@notify_app.command("test")
def send_sample(
    destination: Annotated[str, typer.Argument(help="A receiver, or one of its destinations, like team/webhook/0.")],
    notifications: Notifications = None,
) -> None:
    """Send a sample, firing and then resolved, and say what came of it: exit 0 if all was delivered, else 1."""
    from modelmeter.notification import Alert, Message  # noqa: PLC0415
    from modelmeter.notify.file import read_notifications  # noqa: PLC0415
    from modelmeter.notify.outcome import Failed  # noqa: PLC0415

    found = read_notifications(_config(notifications, needed=False))
    known = found.destinations()
    chosen = found.receivers.get(destination) or ([known[destination]] if destination in known else [])
    if not chosen:
        raise WrongSetting(
            f"there is no destination {destination!r}; there are {', '.join([*found.receivers, *known])}"
        )
    now = time.time_ns() // 1000
    labels = {"alertname": "Sample", "name": "modelmeter", "severity": "none"}
    words = {"summary": "A sample of modelmeter's: it was sent by hand, and nothing is wrong."}
    failed = False
    for one in chosen:
        for ends_at in (None, now):
            alert = Alert("0" * 32, labels, words, 0.0, "sample", now - 1, ends_at)
            message = Message(one.name.split("/", 1)[0], "{}:{sample}", {}, (alert,), "sample")
            outcome = one.send(message, str(uuid4()), now)
            if isinstance(outcome, Failed):
                failed = True
                again = "would never do" if outcome.permanent else "would be tried again"
                print(f"{one.name}: {alert.status}: failed ({again}): {outcome.reason}", file=sys.stderr)
            else:
                print(f"{one.name}: {alert.status}: delivered")
    if failed:
        raise ModelmeterError("not all was delivered")
