"""A map as lines of a table, in words for whoever runs it. It only computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from integration.mapping.check_map_file import BlockLines
from integration.mapping.files import MapFile
from integration.mapping.map_comments import MapComments, read_comments
from integration.mapping.model import (
    Absent,
    AttributeMap,
    ChildRemoval,
    Conflict,
    EntityMap,
    ExpandMap,
    Kind,
    LongText,
    NotedElement,
    PartialDate,
    Route,
)

_COPIED = {
    "string": "text",
    "memo": "long text",
    "integer": "a whole number",
    "decimal": "a number",
    "boolean": "yes or no",
}
_PARTIAL = {
    PartialDate.OMIT: "left out where the day is not known",
    PartialDate.FIRST: "the first day, where only month or year is known",
    PartialDate.LAST: "the last day, where only month or year is known",
}
_REMOVAL = {
    ChildRemoval.ALL: "A row whose item is gone in FHIR is deleted.",
    ChildRemoval.OURS: "A row whose item is gone in FHIR is deleted, if this app made it.",
    ChildRemoval.NEVER: "A row whose item is gone in FHIR stays.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnLine:
    """One column. `becomes`: what its value becomes; `choices`: each code with its options;
    `default`: what stands there without a value; `why`: the map's comments; `written_back`: whether
    an edit of it reaches FHIR; `only`: the only data route that has it; `is_kept`: where FHIR
    has nothing for it, it stays as it is."""

    column: str
    label: str
    kind: Kind
    path: str
    becomes: str
    why: str
    written_back: str
    place: str
    choices: tuple[tuple[str, str], ...] = ()
    default: str | None = None
    only: Route | None = None
    is_kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Columns that stand under one heading of the map."""

    title: str
    lines: tuple[ColumnLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildTable:
    """The rows of a repeating element."""

    table: str
    path: str
    parent: str
    match: tuple[str, ...]
    removal: str
    why: str
    lines: tuple[ColumnLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PathLine:
    """An element without a column, or a variable: its name, its path, and the map's comment."""

    name: str
    path: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MapTable:
    """A map, to be read."""

    about: tuple[str, ...]
    sections: tuple[Section, ...]
    children: tuple[ChildTable, ...]
    left_out: tuple[PathLine, ...]
    expected: tuple[PathLine, ...]
    variables: tuple[PathLine, ...]


@dataclass(slots=True)
class _Comments:
    """The comments of all files of a map."""

    files: Sequence[MapFile]
    found: list[MapComments] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.found = [read_comments(file.text, file.name) for file in self.files]

    def find_note(self, place: str) -> str:
        return next((comment.notes[place] for comment in self.found if place in comment.notes), "")

    def find_section(self, place: str) -> str:
        return next(
            (comment.sections[place] for comment in self.found if place in comment.sections), ""
        )


# Where the setting WRITEBACK is on.
_CONFLICTS = {
    Conflict.FHIR: "edits; where both sides have changed, FHIR holds",
    Conflict.DATAVERSE: "edits; where both sides have changed, Dataverse holds",
    Conflict.HOLD: "edits; where both sides have changed, the row waits",
}


def describe_map(entity: EntityMap, files: Sequence[MapFile]) -> MapTable:
    """Describe a map by what was made of its files, and by their comments."""
    comments = _Comments(files)
    lines = [(item, _describe_column(item, comments)) for item in entity.attributes]
    sections = groupby(lines, lambda pair: comments.find_section(pair[0].defined_at))
    return MapTable(
        about=tuple(paragraph for comment in comments.found for paragraph in comment.about),
        sections=tuple(
            Section(title=title, lines=tuple(line for _, line in group))
            for title, group in sections
        ),
        children=tuple(_describe_child(expand, comments) for expand in entity.expands),
        left_out=_describe_elements(entity.unmapped_elements, comments),
        expected=_describe_elements(entity.expected_elements, comments),
        variables=tuple(_list_variables(entity, files, comments)),
    )


def _describe_elements(
    elements: Sequence[NotedElement], comments: _Comments
) -> tuple[PathLine, ...]:
    return tuple(
        PathLine(name=item.element, path=item.path, why=comments.find_note(item.defined_at))
        for item in elements
    )


def describe_column(attribute: AttributeMap) -> str:
    """Say what the value of an element becomes in the column."""
    match attribute.kind:
        case Kind.COPY:
            is_text = attribute.virtual_column.type in ("string", "memo")
            too_long = "left out" if attribute.too_long is LongText.OMIT else "cut"
            what = _COPIED[attribute.virtual_column.type]
            return f"{what}, as it is; {too_long} where it is too long" if is_text else what
        case Kind.DATE:
            return f"a day; {_PARTIAL[attribute.partial]}"
        case Kind.DATETIME:
            return f"a time, in UTC; {_PARTIAL[attribute.partial]}"
        case Kind.CHOICE:
            return "an option, by its code"
        case Kind.DEFAULT:
            return f"always {attribute.default}"
        case Kind.LOOKUP:
            target = attribute.virtual_column.target
            return f"the row of the {target or 'resource'} that it refers to"
        case Kind.CONCEPT:
            return f"a codeable concept of type {attribute.concept}"
        case Kind.MAP:
            return "a stamp: which map has written the row, and a proof of what was written"


def _describe_column(attribute: AttributeMap, comments: _Comments) -> ColumnLine:
    virtual = attribute.virtual_column
    written_back = "no"
    if virtual.writable:
        written_back = "when it is created" if virtual.create_only else "yes"
    elif attribute.writeback:
        written_back = _CONFLICTS[attribute.conflict]
    has_default = attribute.kind is not Kind.DEFAULT and attribute.default is not None
    return ColumnLine(
        column=attribute.column,
        label=virtual.label,
        kind=attribute.kind,
        path=attribute.path or "",
        becomes=describe_column(attribute),
        why=comments.find_note(attribute.defined_at),
        written_back=written_back,
        place=attribute.defined_at,
        choices=tuple(
            (code, " or ".join(map(str, options))) for code, options in attribute.choices.items()
        ),
        default=str(attribute.default) if has_default else None,
        only=attribute.route,
        is_kept=attribute.absent is Absent.KEEP,
    )


def _describe_child(expand: ExpandMap, comments: _Comments) -> ChildTable:
    return ChildTable(
        table=expand.table,
        path=expand.path,
        parent=expand.parent,
        match=expand.match,
        removal=_REMOVAL[expand.remove],
        why=comments.find_note(expand.defined_at),
        lines=tuple(_describe_column(item, comments) for item in expand.attributes),
    )


def _list_variables(
    entity: EntityMap, files: Sequence[MapFile], comments: _Comments
) -> Iterator[PathLine]:
    places = [BlockLines(file.text, file.name) for file in files]
    for name, path in entity.variables.items():
        notes = (comments.find_note(lines.locate("variables", name)) for lines in places)
        yield PathLine(name=f"%{name}", path=path, why=next(filter(None, notes), ""))
