"""The primary key of the row that shows a resource, and the value of its id column. Pure.

docs/decisions/0003-the-row-key-follows-from-the-fhir-id.md
docs/decisions/0027-a-derived-key-holds-the-fhir-server.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID, uuid5

from integration.core.errors import Unmappable
from integration.core.model import Columns
from integration.mapping.model import EntityMap, LongId

# In lower case, as Dataverse writes it. The case of letters counts in a FHIR id
# (https://hl7.org/fhir/R4/datatypes.html#id) and not in a GUID, so of the ids that are one GUID in
# different spellings only one can have it as its key.
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_NO_KEY = str(UUID(int=0))

# This project's own namespace. Rows are found by it, so it must never change.
_NAMESPACE = UUID("0b7a2f52-6a5c-5a0e-9d0c-2f4f2a7c6f10")


# In the text of a derived key: the first part follows from the resource, the rest from the address
# of the FHIR server. Version 8 is for the layouts of applications:
# https://www.rfc-editor.org/rfc/rfc9562#section-5.8
_VERSION_AT = 14
_SERVER_AT = 24


def derive_primary_key(resource: str, identifier: str) -> str:
    """Return the key of a resource: the FHIR id where it is a GUID in lower case, else a GUID
    derived from it, whichever FHIR server has the resource. The GUID of zeros is no key: to .NET,
    and so to Dataverse, it means none.

    `resource` is the resource type. Ids that differ have keys that differ.
    """
    if _GUID.fullmatch(identifier) and identifier != _NO_KEY:
        return identifier
    return str(uuid5(_NAMESPACE, f"{resource}/{identifier}"))


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """The primary keys of the rows that show the resources of one FHIR server.

    Two servers may have one id for two patients, and mirror to one organisation. So a derived key
    holds the address of the server. `server`: that address; "": keys hold none. `former`: addresses
    that it had before. `others`: of other servers that mirror to the same organisation.
    """

    server: str = ""
    former: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def derive(self, resource: str, identifier: str) -> str:
        """Return the primary key of the row that shows a resource: the FHIR id where it is a GUID
        in lower case, else a GUID derived from the server's address, the type and the id."""
        return _derive_for(self.server, resource, identifier)

    def list_own(self, resource: str, identifier: str) -> tuple[str, ...]:
        """Return every key that a row of the resource may have: the one of `derive` first, then
        those by the former addresses, and the one without an address, as once all were."""
        addresses = (self.server, *self.former, "")
        keys = (_derive_for(address, resource, identifier) for address in addresses)
        return tuple(dict.fromkeys(keys))

    def is_of_other_server(self, key: str, resource: str, identifier: str) -> bool:
        """Whether `key` was derived for a resource of this type and id, but by another address than
        this server has or had."""
        plain_key = derive_primary_key(resource, identifier)
        return (
            plain_key != identifier
            and _get_resource_part(key) == _get_resource_part(plain_key)
            and key not in self.list_own(resource, identifier)
        )

    def is_of_known_server(self, key: str, resource: str, identifier: str) -> bool:
        """Whether `key` was derived by one of the addresses of `others`."""
        return key in {_derive_for(address, resource, identifier) for address in self.others}


def _derive_for(address: str, resource: str, identifier: str) -> str:
    key = derive_primary_key(resource, identifier)
    if key == identifier or not address:
        return key
    # An address has no upper case that means anything to people.
    server = str(uuid5(_NAMESPACE, address.rstrip("/").casefold()))[_SERVER_AT:]
    return f"{key[:_VERSION_AT]}8{key[_VERSION_AT + 1 : _SERVER_AT]}{server}"


def _get_resource_part(key: str) -> str:
    return key[:_VERSION_AT] + key[_VERSION_AT + 1 : _SERVER_AT]


def fit_fhir_id(entity: EntityMap, identifier: str, columns: Columns) -> str:
    """Return the value of the row's id column: the FHIR id, or the substitute for one that is too
    long. Raises Unmappable where the map refuses long ids."""
    max_length = columns[entity.id_column].max_length
    if max_length is None or len(identifier) <= max_length:
        return identifier
    if entity.long_id is LongId.DIGEST:
        return derive_primary_key(entity.resource, identifier)
    raise Unmappable(f"the id is longer than the {max_length} characters of {entity.id_column}")
