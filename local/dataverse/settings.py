"""What a test may change while the stand-in runs: `POST /control/settings` with some of these,
answered with all of them. `POST /control/reset` restores the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# How the response to a failed change set looks. OData has it as one part, without a multipart of
# its own; ASP.NET's OData library, on which the Web API seems to be built, writes the failed
# request alone into a multipart. Which of the two Dataverse does, and whether it returns the
# Content-ID, its pages do not say.
# https://docs.oasis-open.org/odata/odata/v4.0/os/part1-protocol/odata-v4.0-os-part1-protocol.html#_Toc372793753
# https://github.com/OData/WebApi, src/Microsoft.AspNet.OData/Batch/ChangeSetRequestItem.cs
FAILED_CHANGE_SETS = ("single", "multipart", "anonymous")

# Whether two virtual tables of one provider can be related: one of Microsoft's pages allows it,
# another denies it.
# https://learn.microsoft.com/power-apps/maker/data-platform/setup-virtual-table-relationships
# https://learn.microsoft.com/power-apps/developer/data-platform/virtual-entities/api-considerations-ve
VIRTUAL_RELATIONSHIPS = ("refused", "allowed")


@dataclass(slots=True)
class Settings:
    failed_change_sets: str = "single"
    virtual_relationships: str = "refused"
    language: int = 1033

    def change(self, values: Mapping[str, Any]) -> None:
        """Raises ValueError for an unknown setting, or a value that it cannot have."""
        for name, value in values.items():
            match name:
                case "failedChangeSets" if value in FAILED_CHANGE_SETS:
                    self.failed_change_sets = value
                case "virtualRelationships" if value in VIRTUAL_RELATIONSHIPS:
                    self.virtual_relationships = value
                case "language" if type(value) is int:
                    self.language = value
                case _:
                    raise ValueError(
                        f"the setting {name!r} does not exist, or cannot have this value"
                    )

    def reset(self) -> None:
        self.failed_change_sets, self.virtual_relationships = "single", "refused"
        self.language = 1033

    def describe(self) -> dict[str, Any]:
        return {
            "failedChangeSets": self.failed_change_sets,
            "virtualRelationships": self.virtual_relationships,
            "language": self.language,
        }
