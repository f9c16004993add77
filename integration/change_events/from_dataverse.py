"""VERBS queue_edits, ring: rows that people have edited are mirrored again, and that writes the
edits to FHIR.

Change tracking is the truth: it tells each row that was written, however it was. Only keys, FHIR
ids and authors are read. A row that somebody else than this app wrote gets a work item, and the
mirror finds out what was changed (mirror/row_edits.py). So a row that is read twice costs a look,
and no order matters. A webhook of Dataverse is a doorbell, no more: it says that it is time to
look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from integration.core import decimal_json
from integration.core.activity_recorder import add_activity_context
from integration.core.errors import Issue, Misconfigured, Rejected, Unavailable
from integration.core.log_events import log_event
from integration.core.model import Response, Row, WorkItem
from integration.dataverse import change_tracking
from integration.dataverse.change_tracking import MAX_PAGE_SIZE, ChangesPage, UnreadableChanges
from integration.dataverse.client import Dataverse
from integration.dataverse.error_codes import describe_failure
from integration.fhir.grammar import is_id
from integration.journal import synthetic_deliveries
from integration.journal.edit_cursors import EditCursor, EditCursors, Stage
from integration.journal.store import Journal
from integration.mapping.model import EntityMap
from integration.mapping.row_stamp import LENGTH, can_hold_stamp
from integration.queues.names import EDITS_QUEUE, MIRROR_QUEUE
from integration.queues.queue_sender import ChangeQueues, QueueSender

KIND = "edits"

_AUTHORS = ("_modifiedby_value", "_modifiedonbehalfby_value")

# The answers to a link that is not good any more: it has expired, or the organisation was restored.
_REFUSED = (400, 404, 410)

# Seconds between two looks that a doorbell may cause: rings in between are for the next one.
BELL_DELAY = 1.0

# A webhook sends up to 256 KB: https://learn.microsoft.com/power-apps/developer/data-platform/use-webhooks
_MAX_BELL = 1_000_000


@dataclass(slots=True)
class Bell:
    """The doorbell of a worker. `silent_until`: a look that is queued covers what rings until
    then."""

    silent_until: float = field(default=float("-inf"))


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSource:
    """What following edits needs. `load_maps`: the maps in use, by resource type. `max_duration`:
    seconds after which the rest is left to the next run. `clock`: in seconds. `page_size`: of rows
    that are read at once. `takes_new`: resources are made of new rows."""

    journal: Journal
    queue: QueueSender
    dataverse: Dataverse
    cursors: EditCursors
    change_queues: ChangeQueues
    load_maps: Callable[[], Mapping[str, EntityMap]]
    now: Callable[[], datetime]
    new_id: Callable[[datetime], str]
    clock: Callable[[], float]
    max_duration: float
    bell: Bell
    page_size: int = MAX_PAGE_SIZE
    is_on: bool = True
    is_bell_on: bool = False
    takes_new: bool = False


async def ring(source: EditSource, body: bytes) -> bool:
    """Have the edits looked at, as somebody rings. Return whether a look was queued; else one is
    queued already, or it was this app that wrote.

    Nothing of the message is trusted, or kept. Raises Rejected for what is no message of a webhook,
    and where nothing is to be announced.
    """
    if not source.is_bell_on:
        text = "edits are not announced here: WRITEBACK is not bell"
        raise Rejected(Issue("not-found", text), status=404)
    author = _parse_bell(body)
    if author is not None and author == await source.dataverse.get_user_id():
        return False
    if source.clock() < source.bell.silent_until:
        return False
    # The look comes later than every ring that it stands for.
    source.bell.silent_until = source.clock() + BELL_DELAY
    try:
        await source.queue.send(EDITS_QUEUE, WorkItem("edits"), BELL_DELAY)
    except Unavailable:
        source.bell.silent_until = float("-inf")  # Dataverse rings once more
        raise
    return True


def _parse_bell(body: bytes) -> str | None:
    """Return the user that a message names; None: none."""
    message = decimal_json.decode_object(body) if len(body) <= _MAX_BELL else None
    if message is None or "PrimaryEntityName" not in message:
        text = "this is no message of a webhook of Dataverse"
        raise Rejected(Issue("structure", text), status=400)
    author = message.get("InitiatingUserId")
    return author.lower() if isinstance(author, str) else None


def leave_edits() -> None:
    """Drop a look that failed repeatedly: the timer looks as well."""
    log_event("edits.left", reason="looking for edits failed repeatedly; the timer looks again")


async def queue_edits(source: EditSource) -> int:
    """Queue the resources whose rows somebody has written since the last run. Return how many. At
    first, and after the link was lost, those of every row that somebody else has written last.

    Raises Unavailable, and Misconfigured where a table is not tracked or cannot be read.
    """
    queued = 0
    if not source.is_on:  # a look that was queued before it was switched off
        return 0
    until = source.clock() + source.max_duration
    for table, entities in (await _list_tables(source)).items():
        queued += await _follow_table(source, table, entities, until)
    return queued


async def _list_tables(source: EditSource) -> dict[str, list[EntityMap]]:
    """Return the maps that write back, by the table of their rows. Raises Misconfigured where one
    cannot tell edits from what an earlier map has made."""
    mirrored = await source.change_queues()
    tables: dict[str, list[EntityMap]] = defaultdict(list)
    for type_, entity in source.load_maps().items():
        if entity.is_written_back and mirrored.get(type_) == MIRROR_QUEUE:
            if not entity.tells_maps:
                raise Misconfigured(
                    f"WRITEBACK: the rows of {type_} do not say which map has written them: name "
                    "map_digest in MAPS_ENABLED, once Dataverse has its column"
                )
            columns = await source.dataverse.get_columns(entity.table)
            if not can_hold_stamp(entity, columns):
                raise Misconfigured(
                    f"WRITEBACK: the column {entity.map_column} of {entity.table} is too short for "
                    f"a stamp: give it {LENGTH} characters at least"
                )
            tables[entity.table].append(entity)
    return tables


async def _follow_table(
    source: EditSource, table: str, entities: list[EntityMap], until: float
) -> int:
    queued = 0
    columns = _list_columns(entities)
    cursor = await source.cursors.read(table)
    if cursor.columns != columns:  # a link has the columns that were asked for first
        cursor = replace(cursor, link="", stage=Stage.COMPARING, columns=columns)
    while source.clock() < until:
        page = await _read_page(source, cursor, entities)
        if page is None:
            log_event("edits.lost_track", table=table)
            begin = replace(cursor, link="", stage=Stage.COMPARING)
            saved = await source.cursors.save(begin)
            if saved is None:
                return queued
            cursor = saved
            continue
        # Who has no patient by now was made before anybody asked for that.
        is_new_taken = source.takes_new and cursor.stage is Stage.FOLLOWING
        queued += await _queue_rows(source, table, entities, page, is_new_taken=is_new_taken)
        stage = Stage.FOLLOWING if page.is_last else cursor.stage
        # After the work items are sent: whoever dies in between sends them again.
        saved = await source.cursors.save(replace(cursor, link=page.link, stage=stage))
        if saved is None or page.is_last:  # another run goes on from here
            return queued
        cursor = saved
    return queued


def _list_columns(entities: list[EntityMap]) -> str:
    """Return what is read of a row, by commas."""
    kinds = {entity.kind_column for entity in entities if entity.kind_column}
    ids = {entity.id_column for entity in entities}
    return ",".join((entities[0].key, *sorted(ids | kinds), *_AUTHORS))


async def _read_page(
    source: EditSource, cursor: EditCursor, entities: list[EntityMap]
) -> ChangesPage | None:
    """Return the next page of a table. None: its link is not good any more."""
    entity, name = entities[0], source.dataverse.upstream.name
    if cursor.link:
        request = change_tracking.build_next_request(cursor.link, source.page_size)
    else:
        names = cursor.columns.split(",")
        request = change_tracking.build_first_request(entity.entity_set, names, source.page_size)
    with add_activity_context(action="read edits", table=cursor.table):
        response = await source.dataverse.send(request, KIND)
    if cursor.link and response.status in _REFUSED:
        return None
    if response.status != 200:
        raise Misconfigured(_describe_refusal(name, cursor.table, response))
    try:
        return change_tracking.parse_page(response)
    except UnreadableChanges as problem:
        raise Unavailable(name, str(problem)) from None


def _describe_refusal(name: str, table: str, response: Response) -> str:
    return (
        f"{name} {describe_failure(response)} about the changes of {table}: have its changes "
        "tracked (`python -m integration provision` does that), or set WRITEBACK to off"
    )


async def _queue_rows(
    source: EditSource,
    table: str,
    entities: list[EntityMap],
    page: ChangesPage,
    *,
    is_new_taken: bool,
) -> int:
    app_user = await source.dataverse.get_user_id()
    resources = dict(_find_resources(page.rows, entities, app_user))
    if not is_new_taken:
        resources = {name: is_new for name, is_new in resources.items() if not is_new}
    if not resources:
        return 0
    delivery = await _add_delivery(source)
    for resource, is_new in resources.items():
        item = WorkItem(delivery, resource=resource, is_edit=True, is_new_row=is_new)
        await source.queue.send(MIRROR_QUEUE, item)
    log_event("edits.queued", delivery=delivery, table=table, rows=len(resources))
    return len(resources)


def _find_resources(
    rows: tuple[Row, ...], entities: list[EntityMap], app_user: str
) -> Iterator[tuple[str, bool]]:
    """Yield `Type/id` of the rows that somebody else has written last, and whether the row shows no
    resource yet. What somebody has typed into the column of the id names no resource."""
    for row in rows:
        if app_user in (row.get(name) for name in _AUTHORS):
            continue
        for entity in entities:
            id_ = row.get(entity.id_column)
            kind = row.get(entity.kind_column) if entity.kind_column else entity.kind_value
            if kind != entity.kind_value:
                continue
            if id_ is None and entity.kind_column is not None:
                yield f"{entity.resource}/{row[entity.key]}", True
            elif is_id(id_):
                yield f"{entity.resource}/{id_}", False


async def _add_delivery(source: EditSource) -> str:
    """Add the synthetic delivery of a look: its rows tell what became of the edits, and a later
    look must not write over that."""
    now = source.now().astimezone(UTC)
    id_ = source.new_id(now)
    await synthetic_deliveries.add_synthetic_delivery(source.journal, id_, KIND, now, now)
    return id_
