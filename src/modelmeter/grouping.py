"""When a group tells, and what: a pure function of the group, its alerts and the time, which names its reason.

As in Alertmanager: a new group waits `group_wait`, then looks every `group_interval`, and tells when something is new,
or when nothing was told for `repeat_interval`. Better than there: a resolution that is withheld (silenced, inhibited,
muted) is kept and told afterwards, if the alert had been told as firing; nobody waits forever for an all-clear.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from modelmeter.notification import Alert
from modelmeter.routing import Timing


class Why(StrEnum):
    """Why a group tells, or waits."""

    NOT_DUE = "not due"
    NEW_ALERT = "new alert"
    EVENT = "event"
    SOME_RESOLVED = "some resolved"
    ALL_RESOLVED = "all resolved"
    REPEAT = "repeated"
    NOTHING_NEW = "nothing new"
    WITHHELD = "all withheld"
    EMPTY = "empty"
    KEPT_ALIVE = "kept alive"  # not decided here: for destinations that forget an alert they do not hear of


class Withheld(StrEnum):
    """Why an alert is not told now."""

    SILENCED = "silenced"
    INHIBITED = "inhibited"
    MUTED = "muted"


@dataclass(frozen=True, slots=True)
class Member:
    """An alert of a group. `told`: the receiver was told that it fires, and not yet that it is resolved."""

    key: str
    alert: Alert
    told: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """When to look at it next, and when it last told something (None: never). Microseconds."""

    flush_at: int
    told_at: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """`tell`, if not empty, is the message, firing first. `members` and `group` are what is left afterwards."""

    why: Why
    group: Group
    members: tuple[Member, ...]
    tell: tuple[Alert, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether the group has nothing left to watch."""
        return not self.members


def begin(at: int, now: int, timing: Timing) -> Group:
    """A new group whose first alert changed at `at`: one that is long known has waited enough."""
    return Group(max(now, min(at, now) + timing.group_wait))


def decide(
    group: Group, members: Sequence[Member], timing: Timing, now: int, withheld: Mapping[str, Withheld]
) -> Decision:
    """What a group does at `now`. `withheld` says by key which members must not be told now."""
    if now < group.flush_at:
        return Decision(Why.NOT_DUE, group, tuple(members))
    waiting = Group(now + timing.group_interval, group.told_at)
    # What resolved before it was told, and an event that is withheld, is over without a word.
    members = [
        one
        for one in members
        if not (one.alert.ends_at is not None and not one.told) and not (one.alert.event and one.key in withheld)
    ]
    visible = [one for one in members if one.key not in withheld]
    firing = [one for one in visible if one.alert.ends_at is None]
    resolved = [one for one in visible if one.alert.ends_at is not None]
    why = _why(group, firing, resolved, timing, now)
    if why is None:
        why = Why.EMPTY if not members else Why.NOTHING_NEW if visible else Why.WITHHELD
        return Decision(why, waiting, tuple(members))
    left = tuple(
        replace(one, told=True) if one.key not in withheld else one
        for one in members
        if one.key in withheld or (one.alert.ends_at is None and not one.alert.event)
    )
    told = tuple(one.alert for one in [*firing, *resolved])
    return Decision(why, Group(now + timing.group_interval, now), left, told)


def _why(group: Group, firing: Sequence[Member], resolved: Sequence[Member], timing: Timing, now: int) -> Why | None:
    new = [one for one in firing if not one.told]
    if any(not one.alert.event for one in new):
        return Why.NEW_ALERT
    if new:
        return Why.EVENT
    if resolved:
        return Why.SOME_RESOLVED if firing else Why.ALL_RESOLVED
    if firing and group.told_at is not None and now - group.told_at >= timing.repeat_interval:
        return Why.REPEAT
    return None
