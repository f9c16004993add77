"""Reads `senders.toml`, and finds everything that is wrong in it, each problem with its line.

A problem reads `file:line: what is wrong; what to write instead`: it is for whoever edits the file.
A file with one problem is refused whole: half a file would let a sender in with other rights than
were meant.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from integration.core.base_addresses import is_base_address
from integration.core.errors import Misconfigured
from integration.core.model import Rights
from integration.senders.model import Quota, Sender, SenderPolicy
from integration.senders.proofs.json_web_token import JsonWebToken, may_prove_both
from integration.senders.proofs.proof import Proof
from integration.senders.proofs.registry import SCHEMES

# A name is part of addresses, of the journal's keys and of log events.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")

_HEADER = re.compile(r"\s*\[\s*([\w.\"'\s-]+?)\s*\]\s*(?:#.*)?")
# https://www.rfc-editor.org/rfc/rfc6901#section-3
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+")

# They are kept in the metadata of a blob, which has 8 KiB, beside a request's headers, as base64:
# https://learn.microsoft.com/rest/api/storageservices/setting-and-retrieving-properties-and-metadata-for-blob-resources
_MAX_RIGHTS = 3000

_KEY = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*=")

_TABLES = ("proof", "rights", "quota", "policy")

_Keys = TypeVar("_Keys")

# Keys that one might look for, with the reason why there are none.
_ABSENT_KEYS = {
    "hard_deletes": "the relay refuses hard deletes from every sender (docs/http.md)",
}


class WrongSenders(Misconfigured):
    """A file of senders is not as it should be. `problems`: each with its line."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(slots=True)
class _Problems:
    """Collects problems, each with the line of the key or the table that it is about."""

    file: str
    lines: Mapping[tuple[str, str], int]
    texts: list[str] = field(default_factory=list)

    def add(self, table: str, key: str, text: str) -> None:
        sender = table.partition(".")[0]
        places = ((table, key), (f"{table}.{key}", ""), (table, ""), (sender, ""))
        known = [self.lines[place] for place in places if place in self.lines]
        known += [n for (name, _), n in self.lines.items() if name.startswith(f"{sender}.")]
        line = next(iter(known), 1)
        self.texts.append(f"{self.file}:{line}: {text}")


def read_senders(path: Path, resource_types: Collection[str]) -> dict[str, Sender]:
    """Read the senders of a file by name. Raises Misconfigured with every problem."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"SENDERS: {path} cannot be read ({type(error).__name__})") from None
    return parse_senders(text, resource_types, path.name)


def parse_senders(
    text: str, resource_types: Collection[str], file: str = "senders.toml"
) -> dict[str, Sender]:
    """Return the senders of a file by name. Raises Misconfigured with every problem.

    `resource_types`: those that rights may name.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{file}: not valid TOML: {error}") from None
    problems = _Problems(file, find_lines(text))
    senders = {}
    for name, table in data.items():
        sender = _parse_sender(name, table, problems)
        if sender is not None:
            unknown = sorted({*sender.rights.types} - {*resource_types})
            if unknown:
                text_ = f"types: {', '.join(unknown)} is no resource type of FHIR R4"
                problems.add(f"{name}.rights", "types", text_)
            senders[name] = sender
    for first, second in combinations(senders.values(), 2):
        if _are_confusable(first.proof, second.proof):
            text_ = (
                f"{first.name} could send as {second.name}: tell them apart by audiences or claims"
            )
            problems.add(f"{second.name}.proof", "", text_)
    if not data:
        problems.add("", "", "the file names no sender; write a table [name] for each")
    if problems.texts:
        raise WrongSenders(problems.texts)
    return senders


def _are_confusable(first: Proof, second: Proof) -> bool:
    return (
        isinstance(first, JsonWebToken)
        and isinstance(second, JsonWebToken)
        and may_prove_both(first, second)
    )


def find_lines(text: str) -> dict[tuple[str, str], int]:
    """Return the lines of tables, and of their keys; tomllib does not tell them."""
    lines: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            table = re.sub(r"[\"'\s]", "", header[1])
            lines.setdefault((table, ""), number)
        elif key := _KEY.match(line):
            lines.setdefault((table, key[1]), number)
    return lines


def _parse_sender(name: str, table: Any, problems: _Problems) -> Sender | None:
    before = len(problems.texts)
    if not _NAME.fullmatch(name):
        text = f"a sender is named by up to 40 of a-z, 0-9 and -, and {name!r} is not"
        problems.add(name, "", text)
    if not isinstance(table, dict):
        problems.add("", name, f"write a table [{name}]; keys stand in tables of a sender")
        return None
    for key in table.keys() - {*_TABLES}:
        text = f"there is no {key} of a sender; there are {', '.join(_TABLES)}"
        problems.add(name, key, text)
    proof = _parse_proof(name, table.get("proof"), problems)
    rights = _convert(Rights, f"{name}.rights", table.get("rights", {}), problems)
    quota = _convert(Quota, f"{name}.quota", table.get("quota", {}), problems)
    policy = _convert(SenderPolicy, f"{name}.policy", table.get("policy", {}), problems)
    if proof and rights and quota and policy:
        for key, text in _find_contradictions(rights, policy):
            problems.add(f"{name}.{key.partition('.')[0]}", key.partition(".")[2], text)
        if len(problems.texts) == before:
            return Sender(name=name, proof=proof, rights=rights, quota=quota, policy=policy)
    return None


def _parse_proof(name: str, table: Any, problems: _Problems) -> Proof | None:
    place = f"{name}.proof"
    known = ", ".join(SCHEMES)
    if not isinstance(table, dict):
        problems.add(
            place, "", f"{name} has no proof: write [{place}] with scheme = one of {known}"
        )
        return None
    scheme = SCHEMES.get(str(table.get("scheme")))
    if scheme is None:
        problems.add(place, "scheme", f"scheme must be one of {known}")
        return None
    stated = {key: value for key, value in table.items() if key != "scheme"}
    return _convert(scheme.keys, place, stated, problems)


def _convert(keys: type[_Keys], place: str, table: Any, problems: _Problems) -> _Keys | None:
    """Return a table as a value of the class `keys`; None if anything is wrong in it."""
    if not isinstance(table, dict):
        problems.add(place, "", f"{place} must be a table: write [{place}]")
        return None
    before = len(problems.texts)
    types = get_type_hints(keys, include_extras=True)
    for key in table.keys() - types.keys():
        reason = _ABSENT_KEYS.get(key, f"there are {', '.join(types)}")
        problems.add(place, key, f"there is no {key}: {reason}")
    values = {}
    for key, type_ in types.items():
        if key in table:
            try:
                values[key] = msgspec.convert(table[key], type_)
            except msgspec.ValidationError as error:
                problems.add(place, key, f"{key}: {_describe(error, type_)}")
    for key in _list_required(keys):
        if key not in table:
            problems.add(place, "", f"{key} is missing")
    if len(problems.texts) > before:
        return None
    try:
        return keys(**values)
    except ValueError as error:  # what fits each key's type, and not the others
        problems.add(place, "", str(error))
        return None


def _list_required(keys: type) -> Iterator[str]:
    for field_ in fields(keys):
        if field_.default is MISSING and field_.default_factory is MISSING:
            yield field_.name


def _describe(error: msgspec.ValidationError, type_: Any) -> str:
    choices = _list_choices(type_)
    wanted = f"; one of {', '.join(map(str, choices))}" if choices else ""
    return f"{error}{wanted}".replace("`", "")


def _list_choices(type_: Any) -> list[Any]:
    """Return the values of the Literal in a type."""
    found: list[Any] = []
    for argument in getattr(type_, "__args__", ()):
        found += [argument] if isinstance(argument, str | int) else _list_choices(argument)
    return [choice for choice in found if choice != ""]


def _find_contradictions(rights: Rights, policy: SenderPolicy) -> Iterator[tuple[str, str]]:
    """Yield (table.key, what is wrong) for what no single key shows."""
    if rights.identifier_systems and "PATCH" in rights.methods:
        yield (
            "rights.methods",
            "a patch can change any identifier: leave out PATCH of methods, or identifier_systems",
        )
    if rights.conditional_deletes and "DELETE" not in rights.methods:
        yield "rights.conditional_deletes", "conditional_deletes needs DELETE among the methods"
    if len(msgspec.json.encode(rights)) > _MAX_RIGHTS:
        yield "rights", f"the rights have more than {_MAX_RIGHTS} bytes: name fewer"
    for key in ("identifier_systems", "id_prefixes"):
        if not all(getattr(rights, key)):
            yield f"rights.{key}", f"{key}: an empty text allows everything"
    if "PUT" not in rights.methods and policy.trust == "uuids":
        text = "trust = uuids needs PUT: a create updates what has the id that the sender chose"
        yield "policy.trust", text
    if rights.id_prefixes and policy.trust == "uuids":
        yield "policy.trust", "trust = uuids lets the sender choose any id: leave out id_prefixes"
    if policy.base is not None and not is_base_address(policy.base):
        yield (
            "policy.base",
            "base must be an address that starts with https:// (or http:// on this machine), "
            "without a query and a slash at its end",
        )
    if not all(map(_POINTER.fullmatch, policy.idempotency_pointers)):
        text = "each of idempotency_pointers must look like /entry/0/fullUrl"
        yield "policy.idempotency_pointers", text
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", policy.idempotency_header):
        yield "policy.idempotency_header", "idempotency_header must be the name of a header"
    if policy.dialect == "medplum" and policy.base is None and "DELETE" in rights.methods:
        yield (
            "policy.dialect",
            "Medplum does not sign which resource is deleted, so that is asked for at base: set "
            "base, or leave out DELETE from methods",
        )
