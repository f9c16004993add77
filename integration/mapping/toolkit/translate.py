"""From the toolkit's JSONPath to FHIRPath that finds the same values. Pure.

Where the two differ: JSONPath knows lists, FHIRPath flattens them. Json.NET finds nothing below a
list without a position or a filter, applies a position to each list by itself, and takes several
matches for an error; FHIRPath goes on from all items at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from integration.mapping.toolkit.elements import child, is_primitive
from integration.mapping.toolkit.json_path import (
    Both,
    Compare,
    Either,
    Every,
    Exists,
    Field,
    Filter,
    Index,
    NotRead,
    Number,
    Path,
    Test,
    parse,
)

_OPERATORS = {"==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_NUMBERS = frozenset({"integer", "decimal", "positiveInt", "unsignedInt"})


@dataclass(frozen=True, slots=True)
class Translated:
    """FHIRPath, and what is known of where it ends."""

    path: str
    type: str | None  # None: not known
    is_list: bool  # JSONPath ends at a whole list
    targets: tuple[str, ...]  # of a reference
    caveats: tuple[str, ...]  # where values can differ, and why
    owner: str = ""  # the path without its last step
    owner_type: str | None = None
    last: str = ""  # the last element's name


def translate(text: str, root: str | None) -> Translated:
    """`text` on a value of the type `root`. Raises NotRead where there is no equal in FHIRPath."""
    trail = _Trail(root)
    trail.walk(parse(text))
    if not trail.parts:
        raise NotRead("the path names no element")
    return Translated(
        ".".join(trail.parts),
        trail.type,
        trail.is_list,
        trail.targets,
        tuple(dict.fromkeys(trail.caveats)),
        ".".join(trail.parts[:-1]),
        trail.owner,
        trail.last,
    )


@dataclass(slots=True)
class _Trail:
    """The way so far: its parts in FHIRPath, and what JSONPath holds in its hand there."""

    type: str | None
    parts: list[str] = field(default_factory=list)
    is_list: bool = False
    many: bool = False  # several matches are possible
    targets: tuple[str, ...] = ()
    caveats: list[str] = field(default_factory=list)
    owner: str | None = None
    last: str = ""

    def walk(self, path: Path) -> None:
        for step in path:
            match step:
                case Field(name):
                    self.down(name)
                case Index(at):
                    self.position(at)
                case Every():
                    self.items("[*]")
                case Filter(test):
                    self.items("a filter")
                    self.parts.append(f"where({self.test(test)})")

    def down(self, name: str) -> None:
        if name.startswith("_") or name == "resourceType":
            raise NotRead(f"{name} is no element with a value")
        if self.is_list:
            self.open(f"{self.last} is a list, in which JSONPath finds nothing without [0] or a "
                      "filter; here all its items are looked at")  # fmt: skip
        element = child(self.type, name) if self.type else None
        if self.type and element is None:
            raise NotRead(f"{self.type} has no element {name} in FHIR R4")
        if element is None:
            self.caveats.append(f"the type of {name} is not known, so neither whether it repeats")
        self.owner, self.last = self.type, name
        self.type = element.type if element else None
        self.is_list = element.repeats if element else False
        if (self.owner, name) != ("Reference", "reference"):
            self.targets = element.targets if element else ()
        self.parts.append(element.step if element else name)

    def position(self, at: int) -> None:
        if not self.parts:
            raise NotRead("a position without an element")
        if not self.is_list:
            self.caveats.append(f"{self.last} is no list where [{at}] stands, so JSONPath finds "
                                "nothing; here the position counts what is found")  # fmt: skip
        end = ".last()" if at == -1 else f"[{at}]"
        if self.is_list and self.many:
            # A position in each list, not in all of them together.
            self.parts[-1] = f"select({self.parts[-1]}{end})"
        else:
            self.parts[-1] += end
            self.many = False
        self.is_list = False

    def items(self, what: str) -> None:
        if not self.parts:
            raise NotRead(f"{what} without an element")
        if not self.is_list:
            self.caveats.append(f"{self.last} is no list where {what} stands, so JSONPath finds "
                                "nothing; here it is taken for a list of one")  # fmt: skip
        self.is_list, self.many = False, True

    def open(self, why: str) -> None:
        self.caveats.append(why)
        self.is_list, self.many = False, True

    def test(self, test: Test) -> str:
        match test:
            case Both(tests):
                return " and ".join(self.inner(one) for one in tests)
            case Either(tests, mixed):
                if mixed:
                    self.caveats.append("&& and || without brackets: && is taken to bind first, "
                                        "Json.NET reads from left to right")  # fmt: skip
                return " or ".join(self.inner(one) for one in tests)
            case Exists(path):
                return f"{self.below(path).text()}.exists()"
            case Compare():
                return self.comparison(test)

    def inner(self, test: Test) -> str:
        said = self.test(test)
        return f"({said})" if isinstance(test, Both | Either) else said

    def below(self, path: Path) -> _Trail:
        trail = _Trail(self.type)
        trail.walk(path)
        self.caveats += trail.caveats
        return trail

    def text(self) -> str:
        return ".".join(self.parts) or "$this"

    def comparison(self, test: Compare) -> str:
        found = self.below(test.path)
        said, value = found.text(), test.value
        if value is None:
            if test.operator != "!=":
                raise NotRead("FHIR has no null to compare with")
            return f"{said}.exists()"
        if test.operator not in ("==", "!="):
            if not isinstance(value, Number) or found.type not in _NUMBERS:
                raise NotRead("only numbers can be told larger or smaller")
        elif found.type and not is_primitive(found.type):
            raise NotRead(f"{said} is a {found.type}, no value to compare")
        compared = f"{_OPERATORS[test.operator]} {_literal(value)}"
        if found.is_list:
            self.caveats.append(f"{found.last} is a list, which equals nothing in JSONPath; here "
                                "any of its items does")  # fmt: skip
        if found.many or found.is_list:
            return f"{said}.where($this {compared}).exists()"
        return f"{said} {compared}"


def _literal(value: str | bool | Number) -> str:
    """https://hl7.org/fhirpath/#literals"""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value)


def quoted(text: str) -> str:
    """https://hl7.org/fhirpath/#string"""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    if any(ord(one) < 32 for one in escaped):
        raise NotRead("a control character in a text")
    return f"'{escaped}'"
