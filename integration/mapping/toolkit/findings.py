"""Report what became of each of the organisation's maps, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class ConversionStatus(StrEnum):
    """How a map was converted."""

    EXACT = "exactly"  # where the toolkit writes a value, the relay writes the same
    APPROXIMATE = "approximately"
    FAILED = "not"
    OFF = "not, off in the toolkit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of one map of the toolkit."""

    map: str  # the entity map's name
    column: str  # table.column; the table alone for the entity map itself
    action: str
    source: str  # its JSONPath
    status: ConversionStatus
    path: str = ""  # the FHIRPath of ours
    reasons: tuple[str, ...] = ()
    id: str = ""  # of its row


@dataclass(frozen=True, slots=True)
class Conversion:
    """The files by name, and what to report."""

    files: dict[str, str]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Tell whether everything that is in use was converted."""
        return all(finding.status is not ConversionStatus.FAILED for finding in self.findings)


def summarize(findings: Iterable[Finding]) -> str:
    """Return one line of counts."""
    counted = Counter(finding.status for finding in findings)
    return " · ".join(f"{fate}: {counted[fate]}" for fate in ConversionStatus)


def as_text(converted: Conversion) -> Iterator[str]:
    """Yield the lines for a terminal: what needs attention first, with the reasons below."""
    worst = sorted(converted.findings, key=lambda finding: _WORST_FIRST.index(finding.status))
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
    """Return report.md, with a section for each entity map."""
    lines = ["# What was converted from the Data integration toolkit", ""]
    lines += [summarize(converted.findings), ""]
    lines += [f"- {_format_cell(note)}" for note in (*converted.notes, *_GENERAL_NOTES)]
    for name in dict.fromkeys(finding.map for finding in converted.findings):
        lines += ["", f"## {_format_cell(name)}", ""]
        lines += ["| column | action | toolkit | here | converted | why |"]
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

# What is true of every map.
_GENERAL_NOTES = (
    "Exactly means: wherever the toolkit writes a value, the relay writes the same one. We assume "
    "that the toolkit's JSONPath is Json.NET's SelectToken, because its plug-ins are .NET.",
    "If a path finds several values, SelectToken fails; the relay takes the first, and adds a note "
    "to the result of the entry.",
    "If the resource has no value, the relay clears the column: what is removed in FHIR is removed "
    "in Dataverse, too.",
    "A lookup whose resource has no row stays empty; the toolkit then writes nothing at all.",
    "Empty positions in a list (null) do not count here; in JSONPath they do.",
)


def _make_printable(text: str) -> str:
    """Replace control characters: names and paths come from outside."""
    return "".join(character if character.isprintable() else " " for character in text)


def _format_cell(text: str) -> str:
    marks = {"|": "\\|", "<": "&lt;", "`": "\\`"}
    return "".join(marks.get(character, character) for character in _make_printable(text))


def _format_code(text: str) -> str:
    if not text:
        return ""
    return f"`` {_make_printable(text).replace('|', chr(92) + '|').replace('``', '` `')} ``"
