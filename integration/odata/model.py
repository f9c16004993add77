"""Entity types, and the values of their entities. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

NAMESPACE = "FhirRelay"

# A datetime is aware and UTC, to the microsecond.
Value = str | int | Decimal | bool | datetime | UUID | None
EntityValues = Mapping[str, Value]


class Type(StrEnum):
    """The primitive types that Dataverse's provider supports and FHIR needs.

    https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements
    """

    BOOLEAN = "Edm.Boolean"
    DATE_TIME_OFFSET = "Edm.DateTimeOffset"
    DECIMAL = "Edm.Decimal"
    GUID = "Edm.Guid"
    INT32 = "Edm.Int32"
    INT64 = "Edm.Int64"
    STRING = "Edm.String"


@dataclass(frozen=True, slots=True)
class Property:
    """A property. `precision` and `scale` limit the digits of a decimal; None: no limit.

    Text is compared without regard to case, as Dataverse does, unless `case_sensitive`.
    """

    name: str
    type: Type = Type.STRING
    _: KW_ONLY
    nullable: bool = True
    max_length: int | None = None
    precision: int | None = None
    scale: int | None = None
    case_sensitive: bool = False
    writable: bool = False


@dataclass(frozen=True, slots=True)
class EntityType:
    """An entity type and its set. `key`: the name of the key property, which is an Edm.Guid."""

    name: str
    set: str
    key: str
    properties: tuple[Property, ...]
    by_name: Mapping[str, Property] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {property_.name: property_ for property_ in self.properties}
        object.__setattr__(self, "by_name", by_name)
        if by_name[self.key].type != Type.GUID or by_name[self.key].nullable:
            raise ValueError(f"{self.name}.{self.key} is the key: Edm.Guid, never null")

    @property
    def is_writable(self) -> bool:
        """Whether entities can be created, changed and deleted."""
        return any(property_.writable for property_ in self.properties)
