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


@dataclass(slots=True)
class Settings:
    failed_change_sets: str = "single"

    def change(self, values: Mapping[str, Any]) -> None:
        """Raises ValueError for an unknown setting, or a value that it cannot have."""
        for name, value in values.items():
            if name != "failedChangeSets" or value not in FAILED_CHANGE_SETS:
                raise ValueError(f"the setting {name!r} does not exist, or cannot have this value")
            self.failed_change_sets = value

    def reset(self) -> None:
        self.failed_change_sets = "single"

    def describe(self) -> dict[str, Any]:
        return {"failedChangeSets": self.failed_change_sets}
