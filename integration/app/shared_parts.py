"""What several parts are made of: the services, and what follows from the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from integration.app.services import Services
from integration.journal.configuration import ConfigurationVersion
from integration.mapping.files import MapFile
from integration.senders.model import Sender
from integration.virtual_tables.data_routes import DataRoutes

if TYPE_CHECKING:  # it imports the mapping engine, which takes long to load
    from integration.mapping.load import Maps


# Seconds after which the rest of a lane is left to a new work item, and what housekeeping has not
# deleted to its next run. The unit that is under way by
# then must end within functionTimeout of host.json, which ends the worker with all that it does:
# https://learn.microsoft.com/azure/azure-functions/functions-host-json#functiontimeout
MAX_DURATION = 240.0


@dataclass(slots=True)
class LazyMaps:
    """The maps of these files, which are compiled at their first use: that takes seconds."""

    files: Sequence[MapFile]
    own_prefix: str | None = None  # of tables that the organisation has instead of Microsoft's
    _maps: Maps | None = None

    def load(self) -> Maps:
        """Return the maps."""
        if self._maps is None:
            from integration.mapping import load
            from integration.virtual_tables.physical.own_table import add_own_tables

            self._maps = add_own_tables(load.build_maps(self.files), self.own_prefix)
        return self._maps

    @property
    def are_loaded(self) -> bool:
        """Whether they were used."""
        return self._maps is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedParts:
    """What several parts are made of. `version`: of the configuration; `senders`: None: there is no
    list of them."""

    services: Services
    version: ConfigurationVersion
    senders: Mapping[str, Sender] | None
    data_routes: DataRoutes
    maps: LazyMaps
