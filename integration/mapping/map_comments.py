"""What the comments of a map's file say: of the whole map, and of each of its blocks. Pure.

TOML's comments are no data, so no parser gives them. Here they are found by lines, which is enough:
a map has no text over several lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# A rule with a title, which begins a section of the map: `# -- names ----`.
_SECTION = re.compile(r"#\s*--+\s*(?P<title>[^-].*?)\s*-*\s*")
_HEADER = re.compile(r"\s*\[\[?[\w.]+\]\]?\s*(?:#\s*(?P<comment>.*))?")
_KEY = re.compile(r"\s*[\"']?(?P<key>[\w.-]+)[\"']?\s*=")


@dataclass(frozen=True, slots=True)
class MapComments:
    """`about`: what stands before the first key. `notes`: by `file:line` of a block, or of a key
    of a table such as `[rest]`. `sections`: the title of the section of each block."""

    about: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)


def read_comments(text: str, file: str) -> MapComments:
    """Return the comments of a file. A paragraph of `about` is one item."""
    lines = text.splitlines()
    about, rest = _split_about(lines)
    notes: dict[str, list[str]] = {}
    sections: dict[str, str] = {}
    block, is_list, section = file, False, ""
    waiting: list[str] = []  # comments that stand before what they are about
    for number, line in enumerate(lines[rest:], rest + 1):
        stripped = line.strip()
        place = f"{file}:{number}"
        if title := _SECTION.fullmatch(stripped):
            section, is_list, waiting = title["title"], False, []
        elif stripped.startswith("#"):
            words = stripped.lstrip("# ")
            if is_list:
                notes.setdefault(block, []).append(words)
            else:
                waiting.append(words)
        elif header := _HEADER.fullmatch(line):
            block, is_list = place, stripped.startswith("[[")
            sections[block] = section
            found = [*waiting, *filter(None, [header["comment"]])]
            notes.setdefault(block, []).extend(found)
            waiting = []
        elif _KEY.match(line):
            said = _find_trailing_comment(line)
            where = block if is_list else place
            notes.setdefault(where, []).extend([*waiting, *filter(None, [said])])
            waiting = []
        elif not stripped:
            is_list = False  # what stands after a blank line is about the next block
    return MapComments(
        about=about,
        notes={place: " ".join(words) for place, words in notes.items() if words},
        sections=sections,
    )


def _split_about(lines: list[str]) -> tuple[tuple[str, ...], int]:
    """Return the paragraphs at the beginning of the file, and where they end."""
    paragraphs: list[list[str]] = [[]]
    for number, line in enumerate(lines):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            return _join(paragraphs), number
        words = stripped.lstrip("#").strip()
        if words:
            paragraphs[-1].append(words)
        else:
            paragraphs.append([])
    return _join(paragraphs), len(lines)


def _join(paragraphs: Iterable[list[str]]) -> tuple[str, ...]:
    return tuple(" ".join(words) for words in paragraphs if words)


def _find_trailing_comment(line: str) -> str | None:
    """Return the comment behind a value. A `#` inside quotes is none."""
    quote = ""
    is_escaped = False
    for position, char in enumerate(line):
        if is_escaped:
            is_escaped = False
        elif quote:
            is_escaped = char == "\\" and quote == '"'
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#":
            return line[position + 1 :].strip() or None
    return None
