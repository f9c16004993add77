"""The state that every request needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from local.dataverse.organization import DEFAULT_PARAMETERS, OptionalParameters, Organization
from local.dataverse.rows import Store
from local.dataverse.settings import Settings
from local.dataverse.tables import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Tables, rows, clock and ids of the organization, and the parameters of this request."""

    catalog: Catalog
    store: Store
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    organization: Organization = field(default_factory=Organization)
    parameters: OptionalParameters = DEFAULT_PARAMETERS
    settings: Settings = field(default_factory=Settings)
    external_events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=10_000))
    log: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=10_000))
