"""What became of each of the organisation's maps, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """How a map was carried over."""

    EXACT = "exactly"  # where the toolkit writes a value, the relay writes the same
    APPROXIMATE = "approximately"
    NOT = "not"
    OFF = "not, off in the toolkit"


@dataclass(frozen=True, slots=True)
class Finding:
    """One map of the toolkit."""

    map: str  # the entity map's name
    column: str  # table.column; the table alone for the entity map itself
    action: str
    source: str  # its JSONPath
    fate: Fate
    path: str = ""  # ours
    why: tuple[str, ...] = ()
    id: str = ""  # of its row


@dataclass(frozen=True, slots=True)
class Converted:
    """Files by name, and what to tell of them."""

    files: dict[str, str]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether everything that is in use was carried over."""
        return all(finding.fate is not Fate.NOT for finding in self.findings)


def summary(findings: Iterable[Finding]) -> str:
    """One line of counts."""
    counted = Counter(finding.fate for finding in findings)
    return " · ".join(f"{fate}: {counted[fate]}" for fate in Fate)


def as_text(converted: Converted) -> Iterator[str]:
    """A table for a terminal: what needs a look first, the reasons below each."""
    worst = sorted(converted.findings, key=lambda one: _WORST.index(one.fate))
    width = max((len(one.column) for one in worst), default=0)
    for one in worst:
        yield _printable(f"{one.fate:<23}  {one.column:<{width}}  {one.path or one.source}")
        yield from (_printable(f"{'':<23}    {why}") for why in one.why)
    yield from (f"note: {_printable(note)}" for note in converted.notes)
    yield from (f"file: {name}" for name in converted.files)
    yield summary(converted.findings)


def as_markdown(converted: Converted) -> str:
    """report.md: one section for each entity map."""
    lines = ["# What was carried over from the Data integration toolkit", ""]
    lines += [summary(converted.findings), ""]
    lines += [f"- {_cell(note)}" for note in (*converted.notes, *_EVERYWHERE)]
    for name in dict.fromkeys(one.map for one in converted.findings):
        lines += ["", f"## {_cell(name)}", ""]
        lines += ["| column | action | toolkit | here | carried over | why |"]
        lines += ["|---|---|---|---|---|---|"]
        own = (one for one in converted.findings if one.map == name)
        lines += [
            f"| {_cell(one.column)} | {_cell(one.action)} | {_code(one.source)} | "
            f"{_code(one.path)} | {one.fate} | {_cell('; '.join(one.why))} |"
            for one in own
        ]
    return "\n".join(lines) + "\n"


_WORST = (Fate.NOT, Fate.APPROXIMATE, Fate.OFF, Fate.EXACT)

# True of every map, so said once.
_EVERYWHERE = (
    "Exactly means: wherever the toolkit writes a value, the relay writes the same one. The "
    "toolkit's JSONPath is taken for Json.NET's SelectToken, since its plug-ins are .NET.",
    "Where a path finds several values, SelectToken fails; the relay takes the first, and says so "
    "in the outcome of the entry.",
    "Where the resource has no value, the relay clears the column: what is gone in FHIR is gone "
    "in Dataverse, too.",
    "A lookup whose resource has no row stays empty; the toolkit then writes nothing at all.",
    "Places in a list that hold nothing (null) do not count as positions here; in JSONPath they "
    "do.",
)


def _printable(text: str) -> str:
    """Names and paths come from outside; none may steer a terminal or a file."""
    return "".join(one if one.isprintable() else " " for one in text)


def _cell(text: str) -> str:
    marks = {"|": "\\|", "<": "&lt;", "`": "\\`"}
    return "".join(marks.get(one, one) for one in _printable(text))


def _code(text: str) -> str:
    if not text:
        return ""
    return f"`` {_printable(text).replace('|', chr(92) + '|').replace('``', '` `')} ``"
