"""What a signature covers, as a template: `{id}.{timestamp}.{body}`. Pure."""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Literal

from msgspec import Meta

from integration.senders.proofs.proof import Proof, SignedRequest, Unproven
from integration.senders.proofs.reading import (
    DECODERS,
    HeaderName,
    Tolerance,
    read_header,
    read_timestamp,
    require_secrets,
)

# A signature for each key during a rotation; Ed25519 takes longer than a hash.
_MAX_FIELDS = 16

_ID = re.compile(r"[!-~]{1,256}")
_FIELD = re.compile(r"\{([^{}]*)\}")
_FIELD_NAME = r"^([A-Za-z0-9_-]{1,32}|\*)$"
FieldName = Annotated[str, Meta(pattern=_FIELD_NAME)]

# At least one of these: whatever covers no byte of the body proves nothing of it.
_BODIES = ("body", "body:base64", "content-digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedText(Proof):
    """What every scheme has that verifies a signature over a text made of the request."""

    header: HeaderName
    """The header that holds the signature."""

    prefix: str = ""
    """What stands before the signature in its header or field, such as `sha256=`."""

    signature_field: FieldName | None = None
    """For a header of fields, as in `t=1767225600,v1=8f3a`: the name of those that hold a
    signature, here `v1`. `*` takes a field of any name."""

    signed: str = "{body}"
    """The text that is signed. Names in braces stand for parts of the request: `{body}`,
    `{body:base64}`, `{content-digest}` (SHA-256 of the body in hex, base64, or base64 without
    padding: any of the three), `{length}` (of the body), `{id}`, `{timestamp}`, `{method}`,
    `{method:lower}`, `{url}`, `{path}`, `{query}` (without its question mark), `{content-type}`.
    All other characters stand for themselves. The body or its digest must be among the names."""

    id_header: HeaderName | None = None
    """The header of `{id}`. What repeats share is this id, since it is signed."""

    timestamp_header: HeaderName | None = None
    """The header of `{timestamp}`."""

    timestamp_field: FieldName | None = None
    """The field of `{timestamp}`, if it stands in the header of the signature: `t` above."""

    timestamp_unit: Literal["seconds", "milliseconds"] = "seconds"
    """What `{timestamp}` counts since 1970."""

    tolerance: Tolerance = 300
    """Seconds that the timestamp may lie behind or ahead of the relay's clock."""

    def __post_init__(self) -> None:
        require_secrets(self)
        parts = parse_template(self.signed)
        names = {part.name for part in parts if part.name}
        if not names.intersection(_BODIES):
            raise ValueError("signed: it must hold {body}, {body:base64} or {content-digest}")
        if ("id" in names) != (self.id_header is not None):
            raise ValueError("signed: {id} and id_header go together")
        sources = [self.timestamp_header, self.timestamp_field]
        if ("timestamp" in names) != (sum(source is not None for source in sources) == 1):
            raise ValueError(
                "signed: {timestamp} goes together with timestamp_header or timestamp_field"
            )
        if self.timestamp_field and not self.signature_field:
            raise ValueError("timestamp_field: it needs signature_field")
        if self.timestamp_field and self.timestamp_field in (self.signature_field, "*"):
            raise ValueError("timestamp_field: it must be another field than signature_field")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a template: a name in braces, or else text."""

    name: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedParts:
    """A request's signatures, the texts of which one must be signed, and the id if it is signed."""

    signatures: list[bytes]
    texts: list[bytes]
    message_id: str | None


def read_signed_parts(
    proof: SignedText, request: SignedRequest, now: datetime, *, encoding: str, length: int
) -> SignedParts:
    """Read what a signature is compared with. `encoding` and `length`: of the signature.

    Raises Unproven if something is missing or malformed, or the timestamp is not of now.
    """
    value = read_header(request, proof.header)
    fields = _read_fields(value, proof.header) if proof.signature_field else [("", value)]
    signatures = _read_signatures(proof, fields, encoding=encoding, length=length)
    timestamp = _read_signed_timestamp(proof, request, fields)
    if timestamp is not None:
        in_milliseconds = proof.timestamp_unit == "milliseconds"
        read_timestamp(timestamp, now, proof.tolerance, in_milliseconds=in_milliseconds)
    message_id = read_header(request, proof.id_header) if proof.id_header else None
    if message_id is not None and not _is_parted(message_id, parse_template(proof.signed)):
        raise Unproven(
            "the id is longer than 256 characters, or holds a space or what parts it from the rest"
        )
    given = {"id": message_id or "", "timestamp": timestamp or ""}
    return SignedParts(
        signatures=signatures,
        texts=_fill(parse_template(proof.signed), request, given),
        message_id=message_id,
    )


@cache
def parse_template(template: str) -> tuple[Part, ...]:
    """Return the parts of a template. Raises ValueError if it has a name that is not known, or an
    id that nothing parts from other names."""
    pieces = _FIELD.split(template)
    if "" in pieces[1::2]:
        raise ValueError("signed: {} names nothing")
    parts = tuple(
        Part(name=piece) if number % 2 else Part(text=piece)
        for number, piece in enumerate(pieces)
        if piece
    )
    for number, part in enumerate(parts):
        if part.name and part.name not in _VALUES and part.name not in ("id", "timestamp"):
            raise ValueError(f"signed: {{{part.name}}} is not known")
        if not part.name and ("{" in part.text or "}" in part.text):
            raise ValueError("signed: a brace stands alone")
        if not part.name and not part.text.isascii():
            raise ValueError("signed: it holds characters other than ASCII")
        around = [*parts[max(number - 1, 0) : number], *parts[number + 1 : number + 2]]
        # Otherwise characters could be moved from the one to the other under one signature.
        if part.name == "id" and any(part.name for part in around):
            raise ValueError("signed: text must stand between {id} and other names")
    names = [part.name for part in parts if part.name]
    if len(names) != len(set(names)):
        raise ValueError("signed: a name stands twice")
    return parts


def _is_parted(message_id: str, parts: tuple[Part, ...]) -> bool:
    """Whether an id can be told from the rest of the text that is signed."""
    number = parts.index(Part(name="id"))
    before = parts[number - 1].text[-1] if number else ""
    after = parts[number + 1].text[0] if number + 1 < len(parts) else ""
    return _ID.fullmatch(message_id) is not None and not set(message_id) & {before, after}


def _read_fields(value: str, header: str) -> list[tuple[str, str]]:
    parts = value.split(",")
    if len(parts) > _MAX_FIELDS:
        raise Unproven(f"the header {header} has more than {_MAX_FIELDS} fields")
    fields = []
    for part in parts:
        name, sign, text = part.strip(" ").partition("=")
        if not name or not sign:
            raise Unproven(f"the header {header} is not name=value, parted by commas")
        fields.append((name, text))
    return fields


def _read_signatures(
    proof: SignedText, fields: list[tuple[str, str]], *, encoding: str, length: int
) -> list[bytes]:
    wanted = proof.signature_field
    texts = [text for name, text in fields if wanted in (None, "*", name)]
    if not texts:
        raise Unproven(f"the header {proof.header} has no field of the signature")
    signatures = []
    for text in texts:
        if not text.startswith(proof.prefix):
            raise Unproven(f"the signature of the header {proof.header} has another prefix")
        signature = DECODERS[encoding](text.removeprefix(proof.prefix))
        if signature is None or len(signature) != length:
            raise Unproven(
                f"the signature of the header {proof.header} is not {length} bytes in {encoding}"
            )
        signatures.append(signature)
    return signatures


def _read_signed_timestamp(
    proof: SignedText, request: SignedRequest, fields: list[tuple[str, str]]
) -> str | None:
    if proof.timestamp_header:
        return read_header(request, proof.timestamp_header)
    if proof.timestamp_field:
        found = [text for name, text in fields if name == proof.timestamp_field]
        if len(found) != 1:
            raise Unproven(f"the header {proof.header} has no field of the timestamp, or several")
        return found[0]
    return None


def _fill(parts: tuple[Part, ...], request: SignedRequest, given: Mapping[str, str]) -> list[bytes]:
    """Return the text of a template; several where a part may be spelt in several ways."""
    spelt: list[list[bytes]] = [[]]
    for part in parts:
        if not part.name:
            options = [part.text.encode()]
        elif part.name in given:
            options = [given[part.name].encode()]
        else:
            options = _VALUES[part.name](request)
        spelt = [[*pieces, option] for pieces in spelt for option in options]
    return [b"".join(pieces) for pieces in spelt]


def _encode(text: str, what: str) -> list[bytes]:
    if not text.isascii():
        raise Unproven(f"{what} holds characters other than ASCII")
    return [text.encode()]


def _spell_digest(request: SignedRequest) -> list[bytes]:
    # https://docs.gethealthie.com/guides/webhooks does not say which; receivers differ.
    digest = hashlib.sha256(request.body).digest()
    base64 = binascii.b2a_base64(digest, newline=False)
    return [digest.hex().encode(), base64, base64.rstrip(b"=")]


def _get_path(request: SignedRequest) -> list[bytes]:
    rest = request.url.partition("://")[2].partition("?")[0]
    return _encode("/" + rest.partition("/")[2], "the path")


_VALUES: Mapping[str, Callable[[SignedRequest], list[bytes]]] = {
    "body": lambda request: [request.body],
    "body:base64": lambda request: [binascii.b2a_base64(request.body, newline=False)],
    "content-digest": _spell_digest,
    "length": lambda request: [str(len(request.body)).encode()],
    "method": lambda request: _encode(request.method, "the method"),
    "method:lower": lambda request: _encode(request.method.lower(), "the method"),
    "url": lambda request: _encode(request.url, "the address"),
    "path": _get_path,
    "query": lambda request: _encode(request.url.partition("?")[2], "the query"),
    "content-type": lambda request: [read_header(request, "Content-Type").encode()],
}
