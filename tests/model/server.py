"""A FHIR server told by the specification, as simply as it can be: the other opinion.

https://hl7.org/fhir/R4/http.html#transaction. It shares no code with the relay. It is no kinder than
Microsoft's: a PUT and a PATCH of a named resource heed ifMatch, and no entry heeds anything else
(FhirController.cs in https://github.com/microsoft/fhir-server). What was deleted has a version too:
ifMatch compares it, and a PUT that brings it back is answered with 200 (MergeInternalAsync of
SqlServerFhirDataStore.cs there).
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tests.model.links import entry_named, replaced, suffix_of, with_searches

Body = dict[str, Any]

# "in the order: DELETE, POST, PUT/PATCH, GET/HEAD"
_RANK = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2, "GET": 3, "HEAD": 3}


TWICE = "a resource twice in a transaction"


class Refused(Exception):
    """The server does not do what an entry asks."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass
class Server:
    """Current resources by Type/id; `versions` counts those that are deleted, too.

    `mixed` says in which order the entries of a batch are done: the specification leaves it open.
    """

    stored: dict[str, Body] = field(default_factory=dict)
    past: dict[str, list[Body]] = field(default_factory=dict)  # entries of histories, oldest first
    versions: dict[str, int] = field(default_factory=dict)
    mixed: Callable[[Sequence[int]], Sequence[int]] = tuple
    refuses: set[str] = field(default_factory=set)  # types of resources
    page_size: int = 1000
    rewrites: bool = False  # whether it stores something else than what it is sent
    given: int = 0
    now: Callable[[], datetime] = lambda: datetime(2026, 3, 1, 10, tzinfo=UTC)

    def bundle(self, body: Body) -> tuple[int, Body]:
        """POST [base]: the HTTP status, and the response bundle or the OperationOutcome."""
        entries = body["entry"]
        if body["type"] == "transaction":
            try:
                said = self.transaction(entries)
            except Refused as refused:
                return refused.status, _outcome(refused)
        else:
            said = [{} for _ in entries]
            for n in self.mixed(range(len(entries))):
                said[n] = self.alone(entries[n])
        kind = f"{body['type']}-response"
        return 200, {"resourceType": "Bundle", "type": kind, "entry": said}

    def alone(self, entry: Body) -> Body:
        """One entry of a batch."""
        try:
            return self.done(entry, self.decided(entry))
        except Refused as refused:
            return {"response": {"status": str(refused.status), "outcome": _outcome(refused)}}

    def transaction(self, entries: Sequence[Body]) -> list[Body]:
        """All or nothing. Raises Refused."""
        before = deepcopy((self.stored, self.versions, self.past))
        try:
            return self._all(entries)
        except Refused:
            self.stored, self.versions, self.past = before
            raise

    def _all(self, entries: Sequence[Body]) -> list[Body]:
        order = sorted(range(len(entries)), key=lambda n: _RANK[entries[n]["request"]["method"]])
        deletes = [n for n in order if entries[n]["request"]["method"] == "DELETE"]
        reads = [n for n in order if entries[n]["request"]["method"] in ("GET", "HEAD")]
        said: dict[int, Body] = {}
        names: dict[int, str] = {}  # Type/id of what each entry is, or will be
        same: dict[tuple[str, ...], str] = {}  # what several ask for by one search is one resource
        open_: set[int] = set()

        def name(n: int) -> str:
            if n not in names:
                if n in open_:
                    raise Refused(400, "searches that depend on each other")
                open_.add(n)
                request = asked(n)["request"]
                search = (request["url"], request.get("ifNoneExist", ""))
                if "?" in search[0] or search[1]:
                    key = tuple(search[0].partition("?")[::2]) if "?" in search[0] else search
                    names[n] = same[key] if key in same else self.decided(asked(n))
                    same[key] = names[n]
                else:
                    names[n] = self.decided(entries[n])
            return names[n]

        def linked(link: str, n: int) -> str:
            target = entry_named(link, entries[n], entries)
            if target is None:
                return link
            return name(target) + suffix_of(link, entries[target])

        def asked(n: int) -> Body:
            """The entry with the links in its searches replaced."""
            return with_searches(entries[n], lambda link: linked(link, n))

        others = [n for n in order if n not in deletes and n not in reads]
        for n in others:
            # What an update or a patch is of is known before anything is done: one that overlaps
            # with a delete fails the transaction. https://hl7.org/fhir/R4/http.html#trules
            request = entries[n]["request"]
            # A create with the same search makes what both are of: it is decided first, below.
            is_shared = any(_one_search(request, entries[m]["request"]) for m in others)
            if request["method"] != "POST" and "?" in request["url"] and not is_shared:
                name(n)
        for n in deletes:
            said[n] = self.done(entries[n], name(n))
        hits = {n for n in others if entries[n]["request"].get("ifNoneExist")}
        hits = {n for n in hits if name(n) in self.stored}
        again = {n for n in others for m in others if m < n and _one_create(asked(m), asked(n))}
        touched = [name(n) for n in [*deletes, *others] if n not in hits | again]
        touched = [each for each in touched if each]
        if len(set(touched)) < len(touched):
            raise Refused(400, TWICE)
        for n in others:
            entry = asked(n)
            if "resource" in entry:
                new = replaced(entry["resource"], lambda link, n=n: linked(link, n))
                entry = {**entry, "resource": new}
            said[n] = self.done(entry, name(n))
        for n in reads:
            said[n] = self.read(asked(n)["request"]["url"])
        return [said[n] for n in range(len(entries))]

    # -- one interaction --------------------------------------------------------------------------

    def decided(self, entry: Body) -> str:
        """Type/id of the resource that an entry is about, an id given where there is none."""
        request, resource = entry["request"], entry.get("resource", {})
        if request["method"] in ("GET", "HEAD"):
            return ""
        url, _, query = request["url"].partition("?")
        if request["method"] == "POST":
            query = request.get("ifNoneExist", "")
        elif "/" in url:
            return str(url)
        matches = self.search(url, query) if query else []
        if len(matches) > 1:
            raise Refused(412, "several matches")
        if matches:
            if request["method"] == "PUT" and resource.get("id", "") not in ("", _id(matches[0])):
                raise Refused(400, "the id differs from the one of the match")
            return matches[0]
        if request["method"] == "PUT" and "id" in resource:
            return f"{url}/{resource['id']}"
        if request["method"] in ("DELETE", "PATCH"):
            return ""
        self.given += 1
        return f"{url}/server-{self.given}"

    def done(self, entry: Body, identity: str) -> Body:
        """The interaction with the resource it is about."""
        request = entry["request"]
        method, current = request["method"], self.stored.get(identity)
        if method in ("GET", "HEAD"):
            return self.read(request["url"])
        if method in ("PUT", "PATCH") and "?" not in request["url"] and request.get("ifMatch"):
            self._require_version(identity, request["ifMatch"])
        if method == "DELETE":
            there = identity in self.stored
            self.delete(identity)
            # Delete of FhirController.cs names the version that is the deletion.
            etag = {"etag": f'W/"{self.versions[identity]}"'} if there else {}
            return {"response": {"status": "204", **etag}}
        if method == "POST" and request.get("ifNoneExist") and current is not None:
            return self._said(200, identity)
        if (
            entry["resource"].get("refused")
            or entry["resource"].get("resourceType") in self.refuses
        ):
            raise Refused(422, "a rule of the server")
        if method == "PATCH":
            if current is None:
                raise Refused(404, "nothing to patch")
            return self._kept(identity, _patched(current, entry["resource"]))
        new = {**replaced(entry["resource"], self._find), "id": _id(identity)}
        if self.rewrites:
            new["text"] = "as the server puts it"
        return self._kept(identity, new)

    def _require_version(self, identity: str, etag: str) -> None:
        if identity not in self.versions:
            raise Refused(404, "nothing to match")
        if etag != f'W/"{self.versions[identity]}"':
            raise Refused(412, "another version")

    def _kept(self, identity: str, new: Body) -> Body:
        """The new state, unless it is the one that is there: as Microsoft's does, and others."""
        status = 200 if identity in self.versions else 201
        if _content(new) != _content(self.stored.get(identity)):
            self.put(identity, new)
        return self._said(status, identity)

    def put(self, identity: str, resource: Body) -> None:
        version = self.versions[identity] = self.versions.get(identity, 0) + 1
        meta = {**resource.get("meta", {}), "versionId": str(version)}
        meta["lastUpdated"] = self.now().astimezone(UTC).isoformat(timespec="milliseconds")
        self.stored[identity] = {**deepcopy(resource), "meta": meta}
        self._remember(identity, "PUT", {"resource": self.stored[identity]})

    def delete(self, identity: str) -> None:
        if self.stored.pop(identity, None) is not None:
            self.versions[identity] += 1
            self._remember(identity, "DELETE", {})

    def _remember(self, identity: str, method: str, entry: Body) -> None:
        etag = f'W/"{self.versions[identity]}"'
        request = {"method": method, "url": identity}
        modified = self.now().astimezone(UTC).isoformat(timespec="milliseconds")
        response = {"status": "200", "etag": etag, "lastModified": modified}
        entry = {**entry, "request": request, "response": response}
        self.past.setdefault(identity, []).append(entry)

    def _find(self, link: str) -> str:
        """A conditional reference: https://hl7.org/fhir/R4/http.html#trules"""
        type_, mark, query = link.partition("?")
        if not mark or ":" in type_:
            return link
        matches = self.search(type_, query)
        if len(matches) != 1:
            raise Refused(412, "a conditional reference without its one match")
        return matches[0]

    def search(self, type_: str, query: str) -> list[str]:
        """Every condition holds; `_count` and the like are no conditions."""
        wanted = [pair for pair in parse_qsl(query) if not pair[0].startswith("_")]
        wanted = [pair for pair in wanted if pair[0] != "ct"]
        ids = [value.split(",") for name, value in parse_qsl(query) if name == "_id"]
        since = [value for name, value in parse_qsl(query) if name == "_lastUpdated"]
        return [
            identity
            for identity, resource in self.stored.items()
            if identity.startswith(f"{type_}/")
            and all(_has(resource, *pair) for pair in wanted)
            and all(_id(identity) in values for values in ids)
            and all(_is_since(resource, value) for value in since)
        ]

    def get(self, url: str) -> tuple[int, Body]:
        """GET [base]/url"""
        path, mark, query = url.partition("?")
        if path.endswith("/_history"):
            return self._history(path.removesuffix("/_history"))
        if "/_history/" in path:
            return self._version(*path.split("/_history/"))
        if mark or "/" not in path:
            return self._searched(path, query)
        if path in self.stored:
            return 200, self.stored[path]
        return (410 if path in self.versions else 404), _outcome(Refused(404, "not there"))

    def _history(self, identity: str) -> tuple[int, Body]:
        if identity not in self.past:
            return 404, _outcome(Refused(404, "never there"))
        versions = self.past[identity][::-1]
        return 200, {"resourceType": "Bundle", "type": "history", "entry": versions}

    def _version(self, identity: str, version: str) -> tuple[int, Body]:
        for entry in self.past.get(identity, ()):
            if entry["response"]["etag"] == f'W/"{version}"':
                deleted = 410, _outcome(Refused(410, "deleted"))
                return (200, entry["resource"]) if "resource" in entry else deleted
        return 404, _outcome(Refused(404, "no such version"))

    def _searched(self, type_: str, query: str) -> tuple[int, Body]:
        """In the order of the last update or of the date where `_sort` says so, a page at a
        time."""
        params = dict(parse_qsl(query))
        order = params.get("_sort")
        if order not in (None, "_lastUpdated", "-date"):
            return 400, _outcome(Refused(400, "an order that these tests do not know"))
        found = [self.stored[name] for name in self.search(type_, query)]
        if order == "_lastUpdated":
            found.sort(key=lambda each: str(each["meta"]["lastUpdated"]))
        elif order == "-date":
            found.sort(key=lambda each: str(each.get("effectiveDateTime", "")), reverse=True)
        start = int(params.get("ct", 0))
        size = min(int(params.get("_count", self.page_size)), self.page_size)
        searchset: Body = {"resourceType": "Bundle", "type": "searchset", "total": len(found)}
        if len(found) > start + size:
            query = urlencode({**params, "ct": str(start + size)})
            link = {"relation": "next", "url": f"http://fhir/fhir/{type_}?{query}"}
            searchset["link"] = [link]
        if page := found[start : start + size]:
            searchset["entry"] = [{"resource": each, "search": {"mode": "match"}} for each in page]
        return 200, searchset

    def read(self, url: str) -> Body:
        status, resource = self.get(url)
        if status != 200:
            return {"response": {"status": str(status), "outcome": resource}}
        said = self._said(200, url) if url in self.stored else {"response": {"status": "200"}}
        return {"resource": resource, **said}

    def _said(self, status: int, identity: str) -> Body:
        meta = self.stored[identity]["meta"]
        location = f"http://fhir/fhir/{identity}/_history/{meta['versionId']}"
        etag = self._etag(identity)
        return {
            "response": {
                "status": str(status),
                "location": location,
                "etag": etag,
                "lastModified": meta["lastUpdated"],
            }
        }

    def _etag(self, identity: str) -> str | None:
        found = self.stored.get(identity)
        return f'W/"{found["meta"]["versionId"]}"' if found else None


def _one_search(update: Body, create: Body) -> bool:
    """Whether a conditional create asks for the same resource as a conditional update or patch."""
    url, _, query = update["url"].partition("?")
    return create["method"] == "POST" and (url, query) == (
        create["url"],
        create.get("ifNoneExist"),
    )


def _one_create(one: Body, other: Body) -> bool:
    """Two entries with the very same conditional create are one resource."""
    both = [(each["request"]["url"], each["request"].get("ifNoneExist")) for each in (one, other)]
    return bool(both[0][1]) and both[0] == both[1]


def _id(identity: str) -> str:
    return identity.partition("/")[2]


def _has(resource: Body, name: str, value: str) -> bool:
    if name == "identifier":
        system, mark, value = value.rpartition("|")
        return any(
            each.get("value") == value and (not mark or each.get("system", "") == system)
            for each in resource.get("identifier", [])
        )
    if name == "birthdate":
        return bool(resource.get("birthDate") == value)
    if name in ("name", "family"):
        return any(each.get("family") == value for each in resource.get("name", []))
    assert name == "refers", "a search that these tests do not know"
    return any(each["reference"] == value for each in resource.get("refers", []))


def _is_since(resource: Body, value: str) -> bool:
    """Whether it was updated then or later, by `ge` and a moment."""
    assert value.startswith("ge"), "a search that these tests do not know"
    since = datetime.fromisoformat(value[2:])
    since = since if since.tzinfo else since.replace(tzinfo=UTC)
    return datetime.fromisoformat(resource["meta"]["lastUpdated"]) >= since


def _patched(resource: Body, patch: Body) -> Body:
    """What these tests' patches set, and the relay's mark: https://hl7.org/fhir/R4/fhirpatch.html"""
    new = deepcopy(resource)
    if patch["resourceType"] == "Binary":  # the relay's announcement of a delete
        (operation,) = json.loads(b64decode(patch["data"]))
        assert (operation["op"], operation["path"]) == ("add", "/meta/extension")
        new["meta"]["extension"] = operation["value"]
        return new
    for operation in patch["parameter"]:
        parts = {part["name"]: part for part in operation["part"]}
        if ".meta" not in parts["path"]["valueString"]:
            new["patched"] = parts["value"]["valueString"]
        elif parts["type"]["valueCode"] == "delete":
            path, extensions = parts["path"]["valueString"], new["meta"]["extension"]
            new["meta"]["extension"] = [each for each in extensions if each["url"] not in path]
        else:
            url, value = parts["value"]["part"]
            added = {"url": url["valueUri"], "valueString": value["valueString"]}
            new["meta"].setdefault("extension", []).append(added)
    return new


def _content(resource: Body | None) -> Body | None:
    """Without what the server sets. Microsoft's compares the raw text, with these put aside."""
    if resource is None:
        return None
    meta = {
        name: value
        for name, value in resource.get("meta", {}).items()
        if name not in ("versionId", "lastUpdated")
    }
    return {**resource, "meta": meta}


def _outcome(refused: Refused) -> Body:
    issue = {"severity": "error", "code": "processing", "diagnostics": str(refused)}
    return {"resourceType": "OperationOutcome", "issue": [issue]}
