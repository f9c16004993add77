"""What the mirror hands a work item to: a row sink. `web_api_sink` and `healthcare_api_sink` are
the two there are; MIRROR_TO chooses one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from integration.core.model import RowResult, Tables, WorkItem
from integration.mapping.model import EntityMap
from integration.mapping.primary_keys import ServerKeys


class RowSink(Protocol):
    """Writes the rows of one resource."""

    async def bring_up_to_date(self, entity: EntityMap, item: WorkItem) -> RowResult:
        """Read `item.resource` from FHIR as it is now, and make its rows show that state.

        Return what was done. A resource that cannot be mapped, or a row that Dataverse refuses, is
        a result with the action `refused`. Raises Unavailable when a service did not answer, and
        Misconfigured when an operator must act.
        """


@dataclass(frozen=True, slots=True)
class MirrorJob:
    """One resource to mirror: its work item, its entity map, the columns of its tables, and how the
    keys of its FHIR server's rows are derived."""

    entity: EntityMap
    item: WorkItem
    tables: Tables = field(default_factory=dict)
    server_keys: ServerKeys = field(default_factory=ServerKeys)
    writes_back: bool = False  # edits of its row may reach FHIR

    @property
    def reference(self) -> str:
        """`Type/id` of the resource."""
        return self.item.resource or ""

    @property
    def id(self) -> str:
        """The FHIR id of the resource."""
        return self.reference.partition("/")[2]

    @property
    def key(self) -> str:
        """The primary key of the row, unless another app has created the row."""
        return self.server_keys.derive(self.entity.resource, self.id)

    def build_result(
        self,
        action: str,
        *,
        row: str | None = None,
        version: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> RowResult:
        """Return the result of this job. `row`: the primary key of the row."""
        return RowResult(
            delivery=self.item.delivery,
            resource=self.reference,
            table=self.entity.table,
            row=row,
            action=action,
            version=version,
            notes=notes,
        )
