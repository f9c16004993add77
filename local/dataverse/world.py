"""What every request needs at hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from local.dataverse.organization import DEFAULT_PARAMETERS, OptionalParameters, Organization
from local.dataverse.rows import Store
from local.dataverse.tables import Catalog


@dataclass(frozen=True, slots=True)
class World:
    """The tables, the rows, a clock, a source of ids; and the wishes of the request at hand."""

    catalog: Catalog
    store: Store
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    organization: Organization = field(default_factory=Organization)
    parameters: OptionalParameters = DEFAULT_PARAMETERS
    external_events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=10_000))
    log: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=10_000))
