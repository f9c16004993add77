"""The compiled maps, for pages. Compiling takes seconds, so it must not keep the event loop, nor be
within the time that an upstream has to answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from integration.mirror.mirror import Mirror
from integration.pages.parts import MapSources, PatientParts

if TYPE_CHECKING:
    from integration.mapping.load import Maps


async def load_maps(sources: MapSources) -> Maps:
    """Return the maps. The first call of a worker compiles them, in a thread."""
    return await asyncio.to_thread(sources.load)


async def load_mirror(parts: PatientParts) -> Mirror:
    """Return the mirror. The first call of a worker compiles its maps, in a thread."""
    return await asyncio.to_thread(_load, parts)


def _load(parts: PatientParts) -> Mirror:
    # What reads rows imports the mapping engine, which takes long to load.
    import integration.mirror.row_state  # noqa: F401

    return parts.load_mirror()
