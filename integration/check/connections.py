"""The neighbours, with nothing asked of any yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from integration.core.http import Neighbour
from integration.dataverse.client import Dataverse
from integration.fhir.client import FhirServer
from integration.settings import Settings

if TYPE_CHECKING:  # with its SDKs, which no import of the doors should wait for
    from integration.storage import Services


@dataclass(frozen=True, slots=True)
class Ends:
    """`credential` is None where no neighbour wants a token; `feed` where FEED_URL is not set."""

    settings: Settings
    events_queue: str
    storage: Services
    fhir: FhirServer
    dataverse: Dataverse
    sources: Mapping[str, Neighbour]
    feed: Neighbour | None
    feed_key: str | None = field(repr=False)
    credential: Any
    now: Callable[[], datetime]
    skew: float = 60.0  # seconds that a clock may be wrong
