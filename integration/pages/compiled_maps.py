"""The compiled maps, for pages. Compiling takes seconds, so it must not keep the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from integration.pages.parts import MapSources

if TYPE_CHECKING:
    from integration.mapping.load import Maps


async def load_maps(sources: MapSources) -> Maps:
    """Return the maps. The first call of a worker compiles them, in a thread."""
    return await asyncio.to_thread(sources.load)
