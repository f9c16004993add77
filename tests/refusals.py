"""Deliveries of which something was refused, and what of them needs attention."""

from __future__ import annotations

from collections.abc import Collection

from integration.core.model import Status
from integration.journal.concern import Concern
from integration.operations import attention
from tests.builders import Body, bundle
from tests.conftest import Route


async def deliver_refused(
    route: Route, *entries: Body, types: Collection[str] = ("Observation",), kind: str = "batch"
) -> str:
    """Return a delivery that is done, and whose entries of these types were refused."""
    route.fhir_double.refuses = set(types)
    delivery = await route.deliver(bundle(*entries, kind=kind))
    await route.process_all(delivery)
    assert (await route.known(delivery)).status is Status.DONE
    route.fhir_double.refuses = set()
    return delivery


async def list_concerns(route: Route, **params: str) -> list[Concern]:
    """Return what needs attention, newest first."""
    return list((await attention.find_concerns(route.journal, params)).concerns)


async def list_concern_kinds(route: Route) -> list[str]:
    """Return the kinds of what needs attention, newest first."""
    return [str(concern.kind) for concern in await list_concerns(route)]
