"""What a delivery holds, as entries, and how an entry is refused while it is read. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from integration.core import decimal_json
from integration.core.errors import Issue, Rejected
from integration.core.model import FhirResource

# Enough for a sender to correct the delivery, too few to make an answer large.
MAX_ISSUES = 20


@dataclass(frozen=True, slots=True)
class Content:
    """A resource as JSON, and its own id.

    Parsed, a delivery takes four times the memory of its bytes. So its resources are parsed one by
    one, each time they are used: that takes no longer, since what is parsed stays in the cache.
    """

    json: decimal_json.Raw
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing to do at the FHIR server. `refusal` is set when it cannot even be tried."""

    position: int
    where: str  # how an issue names the entry to the sender
    method: str
    type: str
    id: str | None = None  # None when this app or the FHIR server gives the id
    query: str | None = None  # of Type?query: a conditional update, patch or delete, or a search
    content: Content | None = None  # the resource that is sent
    full_url: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_none_exist: str | None = None
    if_modified_since: str | None = None
    read_path: str | None = None  # of GET and HEAD: the path that is read; such an entry has no id
    version: str | None = None  # what a history states about a version, beside the resource
    updated: str | None = None
    refusal: Issue | None = None  # severity information: left out on purpose
    same_as: int | None = None  # the position of an earlier entry that is this very write
    notes: tuple[Issue, ...] = ()  # issues to add to its result
    write_position: int | None = None  # its place among the writes of its resource; None: position

    @property
    def resource(self) -> FhirResource | None:
        """The resource, parsed anew: callers that use it twice keep it."""
        if self.content is None:
            return None
        resource: FhirResource = decimal_json.decode(self.content.json)
        return resource

    @property
    def resource_path(self) -> str:
        """The path of the entry's resource, for `Issue.expression`."""
        return f"{self.where}.resource" if self.where.endswith("]") else self.where

    @property
    def is_conditional(self) -> bool:
        """Only the server can say which resource this entry is."""
        has_search = self.query is not None and self.read_path is None
        return has_search or self.if_none_exist is not None

    @property
    def is_linkable(self) -> bool:
        """Links may point at the entry. Which resource a search finds is known in time only for
        creates and updates, since the server names it in its answer. What is deleted is never the
        target of a link."""
        if self.read_path is not None or self.method == "DELETE":
            return False
        return self.query is None or self.method == "PUT"

    @property
    def identity(self) -> str | None:
        """Type/id as the sender knows the resource."""
        stated_id = self.content.id if self.content and self.method != "PATCH" else None
        entry_id = self.id or stated_id
        return f"{self.type}/{entry_id}" if entry_id else None


@dataclass(frozen=True, slots=True)
class Contents:
    """A parsed delivery. `kind`: the type of the bundle, or `resource` or `ndjson`."""

    kind: str
    entries: tuple[Entry, ...]
    has_next_page: bool = False
    dangling: str = "refuse"  # or note: what to do with placeholders that name no entry


def keep(resource: FhirResource, json: decimal_json.Raw | None = None) -> Content:
    """Return the content of a resource. `json` is its text, where that is at hand."""
    text = decimal_json.Raw(decimal_json.encode(resource)) if json is None else json
    return Content(text, resource.get("id"))


def refuse(code: str, text: str, expression: str | None = None, *, status: int = 400) -> NoReturn:
    """Refuse what is being read: raise Rejected with one issue.

    The caller decides how far that reaches. A transaction is refused as a whole, together with the
    issues of its other entries. An entry of any other bundle and a line of NDJSON are refused alone
    (`refuse_alone`).
    """
    raise Rejected(Issue(code, text, expression), status=status)


def refuse_alone(position: int, where: str, issue: Issue) -> Entry:
    """Return an entry that is not sent, while the rest of its delivery is."""
    return Entry(position=position, where=where, method="", type="", refusal=issue)


def check_count(count: int, max_entries: int | None, expression: str | None = None) -> None:
    """Raise Rejected if a delivery has too many entries: each costs time and memory."""
    if max_entries is not None and count > max_entries:
        text = f"the delivery has more than {max_entries} entries; send it in parts"
        refuse("too-costly", text, expression, status=413)
