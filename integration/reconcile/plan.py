"""Which walks a run takes through the resources and rows of one type, and in which order.

Whoever starts a run chooses what it compares; how that is done is the same for all.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from integration.mapping.model import EntityMap
from integration.reconcile import walk
from integration.reconcile.run import Page, Position, ReconcileRun, count_resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One part of a run. `begin`: starts it at a position. `count`: returns how much it will
    compare from there, where that is known."""

    title: str
    begin: Callable[[Position], AsyncGenerator[Page, None]]
    count: Callable[[Position], Awaitable[int | None]] | None = None


def plan_walks(
    run: ReconcileRun, entity: EntityMap, *, content: bool, deleted: bool = False
) -> list[Walk]:
    """Plan the walks of a run. `content`: compare all that the rows show, and look for child rows
    of no row; else versions alone. `deleted`: also go through the rows, which `content` includes.
    """
    compare = walk.walk_content if content else walk.walk_versions
    walks = [
        Walk(
            title=entity.resource,
            begin=partial(compare, run, entity),
            count=lambda position: count_resources(run, entity, position.at),
        )
    ]
    if content:
        begin = partial(walk.walk_orphans, run, entity)
        walks.append(Walk(title=f"{entity.resource} children", begin=begin))
    if content or deleted:
        begin = partial(walk.walk_rows, run, entity)
        walks.append(Walk(title=f"{entity.resource} rows", begin=begin))
    return walks
