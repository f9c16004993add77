"""What became of each of the organisation's maps, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class ConversionStatus(StrEnum):
    """How a map was carried over."""

    EXACT = "exactly"  # where the toolkit writes a value, the relay writes the same
    APPROXIMATE = "approximately"
    FAILED = "not"
    OFF = "not, off in the toolkit"


@dataclass(frozen=True, slots=True)
class Finding:
    """One map of the toolkit."""

    map: str  # the entity map's name
    column: str  # table.column; the table alone for the entity map itself
    action: str
    source: str  # its JSONPath
    status: ConversionStatus
    path: str = ""  # ours
    reasons: tuple[str, ...] = ()
    id: str = ""  # of its row


@dataclass(frozen=True, slots=True)
class Conversion:
    """Files by name, and what to tell of them."""

    files: dict[str, str]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether everything that is in use was carried over."""
        return all(finding.status is not ConversionStatus.FAILED for finding in self.findings)


def summarize(findings: Iterable[Finding]) -> str:
    """One line of counts."""
    counted = Counter(finding.status for finding in findings)
    return " · ".join(f"{fate}: {counted[fate]}" for fate in ConversionStatus)


def as_text(converted: Conversion) -> Iterator[str]:
    """A table for a terminal: what needs a look first, the reasons below each."""
    worst = sorted(converted.findings, key=lambda one: _WORST_FIRST.index(one.status))
    width = max((len(finding.column) for finding in worst), default=0)
    for finding in worst:
        yield _make_printable(
            f"{finding.status:<23}  {finding.column:<{width}}  {finding.path or finding.source}"
        )
        yield from (_make_printable(f"{'':<23}    {why}") for why in finding.reasons)
    yield from (f"note: {_make_printable(note)}" for note in converted.notes)
    yield from (f"file: {name}" for name in converted.files)
    yield summarize(converted.findings)


def as_markdown(converted: Conversion) -> str:
    """report.md: one section for each entity map."""
    lines = ["# What was carried over from the Data integration toolkit", ""]
    lines += [summarize(converted.findings), ""]
    lines += [f"- {_format_cell(note)}" for note in (*converted.notes, *_GENERAL_NOTES)]
    for name in dict.fromkeys(finding.map for finding in converted.findings):
        lines += ["", f"## {_format_cell(name)}", ""]
        lines += ["| column | action | toolkit | here | carried over | why |"]
        lines += ["|---|---|---|---|---|---|"]
        findings = (finding for finding in converted.findings if finding.map == name)
        lines += [
            f"| {_format_cell(finding.column)} | {_format_cell(finding.action)} | "
            f"{_format_code(finding.source)} | {_format_code(finding.path)} | "
            f"{finding.status} | {_format_cell('; '.join(finding.reasons))} |"
            for finding in findings
        ]
    return "\n".join(lines) + "\n"


_WORST_FIRST = (
    ConversionStatus.FAILED,
    ConversionStatus.APPROXIMATE,
    ConversionStatus.OFF,
    ConversionStatus.EXACT,
)

# True of every map, so said once.
_GENERAL_NOTES = (
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


def _make_printable(text: str) -> str:
    """Names and paths come from outside; none may steer a terminal or a file."""
    return "".join(character if character.isprintable() else " " for character in text)


def _format_cell(text: str) -> str:
    marks = {"|": "\\|", "<": "&lt;", "`": "\\`"}
    return "".join(marks.get(character, character) for character in _make_printable(text))


def _format_code(text: str) -> str:
    if not text:
        return ""
    return f"`` {_make_printable(text).replace('|', chr(92) + '|').replace('``', '` `')} ``"
