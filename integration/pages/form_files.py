"""A form with a file, as browsers send it (multipart/form-data). Pure.

https://datatracker.ietf.org/doc/html/rfc7578
"""

from __future__ import annotations

from io import BytesIO
from typing import IO, Any

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser
from werkzeug.http import parse_options_header

from integration.core.errors import Issue, Rejected
from integration.pages.http import PageRequest

MULTIPART = "multipart/form-data"

# Bytes of all that a form has besides its file.
_MAX_BESIDES = 20_000

# Bytes that are parsed at once, which are 64 KiB and what is left of those before. All of them are
# in memory anyway.
_MAX_PARSED = 500_000

_MAX_PARTS = 10


def is_multipart(request: PageRequest) -> bool:
    """Whether a form is sent as one with a file."""
    media, _ = parse_options_header(request.headers.get("content-type"))
    return media == MULTIPART


def read_form_with_file(
    request: PageRequest, name: str, max_bytes: int
) -> tuple[dict[str, str], bytes]:
    """Parse a form with one file, in the field `name`. Return its other fields, and the bytes of
    the file: none where no file was chosen. Raises Rejected."""
    if len(request.body) > max_bytes + _MAX_BESIDES:
        text = f"the file is larger than {max_bytes} bytes"
        raise Rejected(Issue("too-long", text), status=413)
    _, options = parse_options_header(request.headers.get("content-type"))
    try:
        boundary = options.get("boundary", "").encode("ascii")
        if not boundary:
            raise ValueError("there is no boundary")
        parser = MultiPartParser(
            stream_factory=_open_memory,
            max_form_memory_size=_MAX_PARSED,
            max_form_parts=_MAX_PARTS,
        )
        fields, files = parser.parse(BytesIO(request.body), boundary, len(request.body))
    except (ValueError, RequestEntityTooLarge):
        raise Rejected(Issue("structure", "the form cannot be read")) from None
    found = [key for key, _ in (*fields.items(multi=True), *files.items(multi=True))]
    if len(found) > len({*found}) or name in fields or not {*files} <= {name}:
        raise Rejected(Issue("structure", f"the form has one file, in the field {name}"))
    return {key: value.strip() for key, value in fields.items()}, _read_file(files.get(name))


def _read_file(file: Any) -> bytes:
    data: bytes = b"" if file is None else file.stream.read()
    return data


def _open_memory(*_: object, **__: object) -> IO[bytes]:
    """The default writes large files to a disk: these hold patient data."""
    return BytesIO()
