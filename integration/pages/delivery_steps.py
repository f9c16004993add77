"""The steps of a delivery's story, in the order of time, in words that need no glossary. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from integration.core.model import Activity, Category, Delivery, Status
from integration.operations.delivery_story import DeliveryStory

_TONES = {Category.INFORMATION: "", Category.WARNING: "warn", Category.ERROR: "bad"}

_REPLAYED = "Replayed by an operator"

_FOR_SOMEBODY = "needs somebody"

# Calls that went well, and are shown one by one.
_MAX_CALLS_APART = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. `time`: None: it is not known. `tone`: good, warn, bad or nothing, and `word` says
    it in a word; `lines`: what else is known; `delivery`: the id of another one; `until`: when it
    ends; `number`: how often the same was done, one after the other; `is_call`: a call to
    a service."""

    time: datetime | None
    title: str
    tone: str = ""
    lines: tuple[str, ...] = ()
    delivery: str | None = None
    until: datetime | None = None
    word: str = ""
    number: int = 1
    is_call: bool = False


def list_steps(story: DeliveryStory) -> list[Step]:
    """Return the steps, the oldest first. Those of one time stay in the order of their making."""
    delivery = story.delivery
    later = [*_describe_calls(story.calls), *_describe_changes(delivery)]
    first = [_describe_arrival(story), *_describe_plan(delivery)]
    return [*first, *sorted(later, key=lambda step: step.time or delivery.accepted)]


def group_steps(steps: Iterable[Step]) -> list[tuple[Step, ...]]:
    """Put calls together that went well and follow each other: they are many, and the rest counts.
    What else there is, and a few of such calls, stand for themselves."""
    groups: list[tuple[Step, ...]] = []
    for are_well, group in groupby(steps, lambda step: step.is_call and not step.tone):
        together = tuple(group)
        if are_well and len(together) > _MAX_CALLS_APART:
            groups.append(together)
        else:
            groups += [(step,) for step in together]
    return groups


def _describe_arrival(story: DeliveryStory) -> Step:
    delivery = story.delivery
    lines = []
    if delivery.sender:
        title = f"Received from {delivery.sender}"
        if delivery.corrects:
            title = f"In the place of what was received from {delivery.sender}"
        lines += [
            f"{delivery.kind}: {_count(delivery.entries, 'entry', 'entries')}, "
            f"{_count(delivery.bytes, 'byte')}",
            f"write order: {delivery.write_order}",
        ]
    else:
        title = f"Begun by the app itself: {delivery.kind}"
    if delivery.repeat:
        lines.append("a repeat: the same bytes were accepted before")
    if delivery.gap:
        lines.append(delivery.gap)
    if delivery.more:
        lines.append("it has a next page that was not followed")
    return Step(time=delivery.accepted, title=title, lines=tuple(lines), delivery=story.first)


def _describe_plan(delivery: Delivery) -> Iterator[Step]:
    """Yield the plan of a delivery that was planned, and whether a transaction was split."""
    if not delivery.units:
        return
    lines = [
        f"limits of one request: {_count(delivery.unit_max_entries, 'entry', 'entries')}, "
        f"{_count(delivery.unit_max_bytes, 'byte')}"
    ]
    if delivery.plan > 1:
        lines.append(f"it was planned {delivery.plan} times: this is the last plan")
    if delivery.kind == "transaction":
        lines.append(_explain_split(delivery))
    title = f"Planned as {_count(delivery.lanes, 'lane')}, {_count(delivery.units, 'unit')}"
    tone, word = ("warn", "split") if delivery.split else ("", "")
    yield Step(time=None, title=title, lines=tuple(lines), tone=tone, word=word)


def _explain_split(delivery: Delivery) -> str:
    if not delivery.split:
        return "sent as one transaction: all of it is written, or nothing"
    if delivery.entries > delivery.unit_max_entries:
        why = "it has more entries than one request may have"
    elif delivery.bytes > delivery.unit_max_bytes:
        why = "it has more bytes than one request may have"
    else:
        why = "with what is added it is too large, or an entry needs the id of another one first"
    return f"not sent as one transaction, so some of it may be written and some refused: {why}"


def _describe_calls(calls: Iterable[Activity]) -> Iterator[Step]:
    """Yield a step for each call; for several that are alike and follow each other, the first."""
    last: Step | None = None
    for step in map(_describe_call, calls):
        if last is not None and replace(step, time=last.time, number=last.number) == last:
            last = replace(last, number=last.number + 1)
            continue
        if last is not None:
            yield last
        last = step
    if last is not None:
        yield last


def _describe_call(call: Activity) -> Step:
    about = call.row and f"{call.table} {call.row}"
    lines = [part for part in (call.resource, about) if part]
    return Step(
        time=call.time,
        title=f"{call.upstream}: {call.action}: {call.status}",
        tone=_TONES[call.category],
        word="" if call.category is Category.INFORMATION else str(call.category),
        lines=(*lines, *call.notes),
        is_call=True,
    )


def _describe_changes(delivery: Delivery) -> Iterator[Step]:
    """Yield what has become of the delivery itself."""
    reason = (delivery.reason,) if delivery.reason else ()
    if delivery.replayed is not None:
        round_ = (f"round {delivery.round}",) if delivery.round else ()
        # It is not recorded whether a correction was replayed since.
        title = "Sent, or replayed, by an operator" if delivery.corrects else _REPLAYED
        yield Step(time=delivery.replayed, title=title, lines=round_)
    if delivery.status is Status.PARKED:
        yield Step(
            time=delivery.parked, title="Parked", tone="bad", word=_FOR_SOMEBODY, lines=reason
        )
    elif delivery.waiting is not None:
        whom = "somebody to mend something" if delivery.for_operator else "the next attempt"
        attempts = f"{_count(delivery.attempts, 'attempt')} failed"
        yield Step(
            time=delivery.waiting,
            title=f"Waits for {whom}",
            tone="bad" if delivery.for_operator else "warn",
            word=_FOR_SOMEBODY if delivery.for_operator else "waits",
            lines=(*reason, attempts),
            until=delivery.next_attempt,
        )
    if delivery.status is Status.CANCELLED:
        yield Step(time=delivery.finished, title="Cancelled", tone="warn")
    elif delivery.status is Status.DONE:
        counts = ", ".join(
            f"{number} {word}"
            for number, word in (
                (delivery.written, "written"),
                (delivery.skipped, "left out on purpose"),
                (delivery.refused, "refused"),
                (delivery.superseded, "superseded by a later delivery"),
                (delivery.queued_rows, "queued for Dataverse"),
            )
            if number
        )
        tone = "bad" if delivery.refused else "good"
        yield Step(
            time=delivery.finished,
            title="Finished",
            tone=tone,
            word=_FOR_SOMEBODY if delivery.refused else "",
            lines=(counts,) if counts else (),
        )


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}".replace(",", "\u202f")
