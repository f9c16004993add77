"""A request as a vendor's console shows it: raw HTTP, or a curl command line. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from integration.core.errors import Misconfigured
from integration.senders.proofs.proof import SignedRequest

# Stands for the app's address where nothing says it.
EXAMPLE_ROOT = "https://relay.example"

_REQUEST_LINE = re.compile(r"([A-Z]{3,10}) (\S+)(?: HTTP/[0-9.]+)?")
_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*(.*)")
_BLANK = re.compile(rb"\r?\n\r?\n")
# https://www.gnu.org/software/bash/manual/html_node/ANSI_002dC-Quoting.html
_ANSI = re.compile(r"(?<=\s)\$'((?:[^'\\]|\\.)*)'", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}

_WITH_VALUE = {
    "-X": "method",
    "--request": "method",
    "-H": "header",
    "--header": "header",
    "-d": "data",
    "--data": "data",
    "--data-ascii": "data",
    "--data-binary": "data",
    "--data-raw": "raw",
    "--json": "json",
    "--url": "url",
    # Options of curl that say nothing of the request that is proven.
    "-o": "",
    "--output": "",
    "-m": "",
    "--max-time": "",
    "-w": "",
    "--write-out": "",
    "-A": "",
    "--user-agent": "",
    "--connect-timeout": "",
    "--cacert": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedRequest:
    """`target`: an address, or a path; None: the text does not say it. Header names are lower case.
    `body_file`: the file that a curl command sends, whose content is not in the text."""

    method: str
    target: str | None
    headers: Mapping[str, str]
    body: bytes
    body_file: str | None = None

    @property
    def stated_length(self) -> int | None:
        """What Content-Length says."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def parse_captured(text: bytes) -> CapturedRequest:
    """Parse a pasted request. Raises Misconfigured that names the line, and quotes nothing."""
    stripped = text.lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.match(rb"(?:\$ )?curl(?:\.exe)?\s", stripped):
        return _parse_curl(stripped.removeprefix(b"$ ").decode("utf-8", "surrogateescape"))
    return _parse_raw(stripped)


def build_request(captured: CapturedRequest, root: str | None, name: str) -> SignedRequest:
    """Build what a proof is verified on. `root`: what stands before /api in the app's addresses, as
    PUBLIC_URL says it; `name`: of the sender, for a request that does not say its address."""
    target = captured.target or f"/api/senders/{name}/fhir"
    if "://" in target:
        scheme, _, rest = target.partition("://")
        host, slash, path = rest.partition("/")
        base, path = f"{scheme}://{host}", f"{slash}{path}"
    else:
        host = captured.headers.get("host", "").strip()
        base, path = f"https://{host}" if host else EXAMPLE_ROOT, target
    return SignedRequest(
        method=captured.method,
        url=f"{root or base}{path}",
        headers=captured.headers,
        body=captured.body,
    )


def list_bodies(captured: CapturedRequest) -> Iterator[tuple[CapturedRequest, str]]:
    """Yield the request as it was pasted, and as it may have been sent, with what is different:
    editors put an end of line after a body."""
    yield captured, ""
    for end in (b"\r\n", b"\n"):
        if captured.body.endswith(end):
            bare = replace(captured, body=captured.body.removesuffix(end))
            yield bare, "without the end of line after the body, which an editor has put there"
            return


def _parse_raw(text: bytes) -> CapturedRequest:
    parts = _BLANK.split(text, maxsplit=1)
    lines = parts[0].decode("latin-1").splitlines()
    method, target = "POST", None
    if lines and (found := _REQUEST_LINE.fullmatch(lines[0].strip())):
        method, target = found[1], found[2]
        lines = lines[1:]
        first = 2
    else:
        first = 1
    headers: dict[str, str] = {}
    for number, line in enumerate(lines, first):
        found = _HEADER.fullmatch(line)
        if found is None:
            raise Misconfigured(
                f"line {number} is no header: write `Name: value` on each line, an empty line, and "
                "the body; or paste a curl command"
            )
        _add_header(headers, found[1], found[2])
    if not headers:
        raise Misconfigured("the file holds no request: paste its headers, an empty line, its body")
    return CapturedRequest(
        method=method, target=target, headers=headers, body=parts[1] if len(parts) > 1 else b""
    )


def _add_header(headers: dict[str, str], name: str, value: str) -> None:
    key, text = name.lower(), value.strip()
    headers[key] = f"{headers[key]},{text}" if key in headers else text


def _parse_curl(text: str) -> CapturedRequest:
    try:
        # Consoles of Windows continue a line with ^.
        words = shlex.split(_ANSI.sub(_requote, re.sub(r"[\\^]\r?\n", " ", text)))
    except ValueError:
        raise Misconfigured("the curl command ends within quotation marks") from None
    method: str | None = None
    target: str | None = None
    headers: dict[str, str] = {}
    data: list[str] = []
    file: str | None = None
    for kind, value in _list_options(words[1:]):
        match kind:
            case "method":
                method = value.upper()
            case "url":
                target = value
            case "header":
                name, _, rest = value.partition(":")
                _add_header(headers, name.strip(), rest)
            case "data" if value.startswith("@"):
                file = value[1:]
            case "data" | "raw" | "json":
                data.append(value)
                if kind == "json":
                    headers.setdefault("content-type", "application/json")
    if target is None and not headers:
        raise Misconfigured("the curl command names neither an address nor a header")
    return CapturedRequest(
        method=method or ("POST" if data or file else "GET"),
        target=target,
        headers=headers,
        body="&".join(data).encode("utf-8", "surrogateescape"),
        body_file=file,
    )


def _requote(found: re.Match[str]) -> str:
    """Return what stands in $'...', as browsers quote, in the quotation marks of every shell."""
    inner = _ESCAPE.sub(
        lambda part: (
            chr(int(part[1][1:], 16)) if part[1][0] in "ux" else _ESCAPES.get(part[1], part[1])
        ),
        found[1],
    )
    return shlex.quote(inner)


def _list_options(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (what it is, value) of each option that says something of the request."""
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        short = word[:2] if len(word) > 2 and word[0] == "-" != word[1] else ""
        name, sign, joined = word.partition("=")
        if word in _WITH_VALUE and position < len(words):
            kind, value = _WITH_VALUE[word], words[position]
            position += 1
        elif short in _WITH_VALUE:
            kind, value = _WITH_VALUE[short], word[2:]
        elif sign and name in _WITH_VALUE:
            kind, value = _WITH_VALUE[name], joined
        elif word.startswith("-"):
            continue
        else:
            kind, value = "url", word
        if kind:
            yield kind, value
