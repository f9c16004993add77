"""Open a file of the inbox: JSON or NDJSON as it is, in gzip, or as members of a zip. Pure.

Nothing here trusts what a file says of itself: what is decompressed is bounded by what is read.
Texts of errors name a member by its number, since names of files may hold names of patients.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import msgspec

from integration.core.errors import Issue, Rejected
from integration.core.gzip import decompress

# Members of a zip. Each becomes a delivery, or an answer.
MAX_MEMBERS = 1000

# All members of a zip together, as a multiple of MAX_DELIVERY_BYTES.
MAX_TOTAL = 10

# FHIR in JSON shrinks to a tenth; what deflate makes of nothing but zeros is a thousandth:
# https://www.zlib.net/zlib_tech.html
MAX_RATIO = 200

# Below this size a file harms nobody, however well it was compressed. In bytes.
_HARMLESS = 1_000_000

_JSON, _NDJSON = "application/fhir+json", "application/fhir+ndjson"

_PLAIN_ENDINGS = (".json", ".ndjson", ".jsonl")
_NDJSON_ENDINGS = (".ndjson", ".jsonl")

_GZIP_BEGIN = b"\x1f\x8b"  # https://www.rfc-editor.org/rfc/rfc1952#section-2.3.1
# https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
_ZIP_BEGINS = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_ENTRY = b"PK\x01\x02"
_IS_ENCRYPTED = 0x1

# In characters: it becomes part of the answer's name, which has at most 1,024.
_MAX_MEMBER_NAME = 200

_NOT_BLANK = re.compile(rb"\S")
_DRIVE = re.compile(r"[A-Za-z]:")

# What the archiver of macOS adds: https://superuser.com/questions/104500
_ADDED_FOLDERS = ("__MACOSX/",)

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Part:
    """What becomes one delivery. `member`: its name in the zip; None: it is the whole file.

    `read` returns its media type and its bytes. It takes time, and raises Rejected.
    """

    member: str | None
    read: Callable[[], tuple[str, bytes]]


def estimate_bytes(name: str, size: int, max_bytes: int) -> int:
    """Return the most bytes that are in memory while a file is taken."""
    return size if _is_plain(name) else size + max_bytes


def list_parts(name: str, body: bytes, max_bytes: int) -> list[Part]:
    """Return what a file consists of. `max_bytes`: of one part.

    What its name says counts; where that says nothing, its first bytes do. Raises Rejected.
    """
    lower = name.lower()
    if _is_plain(name):
        return [Part(None, lambda: (_choose_media(lower, body), body))]
    if lower.endswith(".zip") or body.startswith(_ZIP_BEGINS):
        return _list_members(body, max_bytes)
    if lower.endswith(".gz") or body.startswith(_GZIP_BEGIN):
        return [Part(None, partial(_read_gzip, lower.removesuffix(".gz"), body, max_bytes))]
    return [Part(None, lambda: (_choose_media(lower, body), body))]


def _is_plain(name: str) -> bool:
    return name.lower().endswith(_PLAIN_ENDINGS)


def _choose_media(lower: str, body: bytes) -> str:
    """Return the media type. NDJSON is told by a first line that is an object, with more after it:
    JSON has one value."""
    if lower.endswith(_NDJSON_ENDINGS):
        return _NDJSON
    start = _NOT_BLANK.search(body)
    end = body.find(b"\n", start.start()) if start else -1
    if start is None or end < 0 or _NOT_BLANK.search(body, end) is None:
        return _JSON
    try:
        line = msgspec.json.decode(memoryview(body)[start.start() : end])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _JSON
    return _NDJSON if isinstance(line, dict) else _JSON


def _read_gzip(lower: str, body: bytes, max_bytes: int) -> tuple[str, bytes]:
    try:
        content = decompress(body, max_bytes)
    except zlib.error:
        raise Rejected(Issue("invalid", "the file is not valid gzip")) from None
    _check_size(len(content), len(body), max_bytes, "the file")
    _refuse_archive(content, "the file")
    return _choose_media(lower, content), content


def _list_members(body: bytes, max_bytes: int) -> list[Part]:
    """Check a zip as a whole: none of it is taken if any member would have to be guessed at."""
    # Before it is parsed: each member takes a kilobyte then.
    if body.count(_ZIP_ENTRY) > MAX_MEMBERS:
        raise _refuse_zip(f"it has more than {MAX_MEMBERS} members; send it in parts")
    try:
        archive = zipfile.ZipFile(io.BytesIO(body))
    except _DAMAGED:
        raise _refuse_zip("it cannot be read") from None
    numbered = [
        (number, member)
        for number, member in enumerate(archive.infolist(), 1)
        if not member.is_dir() and not member.filename.startswith(_ADDED_FOLDERS)
    ]
    problems = list(_find_problems(numbered, max_bytes))
    if not numbered:
        problems = ["it has no members"]
    if problems:
        raise _refuse_zip("; ".join(problems[:10]))
    return [
        Part(member.filename, partial(_read_member, archive, member, number, max_bytes))
        for number, member in numbered
    ]


def _find_problems(numbered: list[tuple[int, zipfile.ZipInfo]], max_bytes: int) -> Iterator[str]:
    names = set[str]()
    total = 0
    for number, member in numbered:
        name, total = member.filename, total + member.file_size
        if name in names:
            yield f"member {number} has the name of another"
        names.add(name)
        if _leads_out(name):
            yield f"the name of member {number} is too long, no plain text, or leads out"
        if name.lower().endswith((".zip", ".gz")):
            yield f"member {number} is an archive itself; put its content into this one"
        if member.flag_bits & _IS_ENCRYPTED:
            yield f"member {number} is encrypted"
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            yield f"member {number} is neither stored nor deflated"
    if total > MAX_TOTAL * max_bytes:
        yield f"its members have more than {MAX_TOTAL * max_bytes} bytes together"


def _leads_out(name: str) -> bool:
    parts = name.split("/")
    return (
        len(name) > _MAX_MEMBER_NAME
        or bool(_DRIVE.match(name))
        or "\\" in name
        or not name.isprintable()
        or any(part in ("", ".", "..") for part in parts)
    )


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, number: int, max_bytes: int
) -> tuple[str, bytes]:
    try:
        with archive.open(member) as stream:
            content = stream.read(max_bytes + 1)
    except _DAMAGED:
        raise Rejected(Issue("invalid", f"member {number} of the zip is damaged")) from None
    _check_size(len(content), member.compress_size, max_bytes, f"member {number} of the zip")
    _refuse_archive(content, f"member {number} of the zip")
    return _choose_media(member.filename.lower(), content), content


def _check_size(size: int, compressed: int, max_bytes: int, what: str) -> None:
    if size > max_bytes:
        text = f"{what} has more than {max_bytes} bytes when it is decompressed; send it in parts"
        raise Rejected(Issue("too-long", text), status=413)
    if size > max(MAX_RATIO * compressed, _HARMLESS):
        text = f"{what} is more than {MAX_RATIO} times as large when it is decompressed"
        raise Rejected(Issue("too-long", text), status=413)


def _refuse_archive(content: bytes, what: str) -> None:
    if content.startswith((_GZIP_BEGIN, *_ZIP_BEGINS)):
        text = f"{what} holds an archive; put its content into the outer one"
        raise Rejected(Issue("not-supported", text), status=415)


def _refuse_zip(text: str) -> Rejected:
    return Rejected(Issue("invalid", f"nothing of the zip is taken: {text}"))
