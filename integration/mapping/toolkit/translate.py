"""Translate the toolkit's JSONPath to FHIRPath that finds the same values. Pure.

The two differ in lists, which FHIRPath flattens. Json.NET finds nothing below a list without a
position or a filter, applies a position to each list separately, and fails on several matches;
FHIRPath continues with all items at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from integration.mapping.toolkit.elements import find_element, is_primitive
from integration.mapping.toolkit.json_path import (
    And,
    Compare,
    Exists,
    Field,
    Filter,
    Index,
    Number,
    Or,
    Path,
    Test,
    Unconvertible,
    Wildcard,
    parse,
)

_OPERATORS = {"==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_NUMBERS = frozenset({"integer", "decimal", "positiveInt", "unsignedInt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedPath:
    """FHIRPath, and what is known about the element at its end."""

    path: str
    type: str | None  # None: unknown
    is_list: bool  # JSONPath ends at a whole list
    targets: tuple[str, ...]  # of a reference
    caveats: tuple[str, ...]  # where values can differ, and why
    owner: str = ""  # the path without its last step
    owner_type: str | None = None
    last: str = ""  # the last element's name


def translate(text: str, root: str | None) -> TranslatedPath:
    """Translate JSONPath that starts at a value of the type `root`; None: an unknown type.

    Raises Unconvertible if FHIRPath has no equivalent.
    """
    translator = _Translator(type=root)
    translator.apply_steps(parse(text))
    if not translator.parts:
        raise Unconvertible("its path names no element")
    return TranslatedPath(
        path=".".join(translator.parts),
        type=translator.type,
        is_list=translator.is_list,
        targets=translator.targets,
        caveats=tuple(dict.fromkeys(translator.caveats)),
        owner=".".join(translator.parts[:-1]),
        owner_type=translator.owner,
        last=translator.last,
    )


@dataclass(slots=True, kw_only=True)
class _Translator:
    """The path translated so far, and what JSONPath has found there."""

    type: str | None
    parts: list[str] = field(default_factory=list)
    is_list: bool = False
    many: bool = False  # several matches are possible
    targets: tuple[str, ...] = ()
    caveats: list[str] = field(default_factory=list)
    owner: str | None = None
    last: str = ""

    def apply_steps(self, path: Path) -> None:
        for step in path:
            match step:
                case Field(name):
                    self.enter_element(name)
                case Index(at):
                    self.take_position(at)
                case Wildcard():
                    self.take_items("[*]")
                case Filter(test):
                    self.take_items("a filter")
                    self.parts.append(f"where({self.render_test(test)})")

    def enter_element(self, name: str) -> None:
        if name.startswith("_") or name == "resourceType":
            raise Unconvertible(f"{name} is not an element with a value")
        if self.is_list:
            self.flatten_list(
                f"{self.last} is a list, in which JSONPath finds nothing without [0] or a "
                "filter; the relay searches all its items"
            )
        element = find_element(self.type, name) if self.type else None
        if self.type and element is None:
            raise Unconvertible(f"{self.type} has no element {name} in FHIR R4")
        if element is None:
            self.caveats.append(f"the type of {name} is unknown, and so is whether it repeats")
        self.owner, self.last = self.type, name
        self.type = element.type if element else None
        self.is_list = element.repeats if element else False
        if (self.owner, name) != ("Reference", "reference"):
            self.targets = element.targets if element else ()
        self.parts.append(element.step if element else name)

    def take_position(self, at: int) -> None:
        if not self.parts:
            raise Unconvertible("a position without an element")
        if not self.is_list:
            self.caveats.append(
                f"{self.last} is no list where [{at}] stands, so JSONPath finds nothing; the relay "
                "counts all values that it finds"
            )
        end = ".last()" if at == -1 else f"[{at}]"
        if self.is_list and self.many:
            # The position counts in each list separately.
            self.parts[-1] = f"select({self.parts[-1]}{end})"
        else:
            self.parts[-1] += end
            self.many = False
        self.is_list = False

    def take_items(self, what: str) -> None:
        if not self.parts:
            raise Unconvertible(f"{what} without an element")
        if not self.is_list:
            self.caveats.append(
                f"{self.last} is no list where {what} stands, so JSONPath finds nothing; the relay "
                "treats it as a list of one item"
            )
        self.is_list, self.many = False, True

    def flatten_list(self, why: str) -> None:
        self.caveats.append(why)
        self.is_list, self.many = False, True

    def render_test(self, test: Test) -> str:
        match test:
            case And(tests):
                return " and ".join(self.render_operand(operand) for operand in tests)
            case Or(tests, mixed):
                if mixed:
                    self.caveats.append(
                        "&& and || without brackets: in the relay && binds first, Json.NET reads "
                        "from left to right"
                    )
                return " or ".join(self.render_operand(operand) for operand in tests)
            case Exists(path):
                return f"{self.translate_below(path).render()}.exists()"
            case Compare():
                return self.render_comparison(test)

    def render_operand(self, test: Test) -> str:
        text = self.render_test(test)
        return f"({text})" if isinstance(test, And | Or) else text

    def translate_below(self, path: Path) -> _Translator:
        translator = _Translator(type=self.type)
        translator.apply_steps(path)
        self.caveats += translator.caveats
        return translator

    def render(self) -> str:
        return ".".join(self.parts) or "$this"

    def render_comparison(self, test: Compare) -> str:
        found = self.translate_below(test.path)
        text, value = found.render(), test.value
        if value is None:
            if test.operator != "!=":
                raise Unconvertible("FHIR has no null to compare with")
            return f"{text}.exists()"
        if test.operator not in ("==", "!="):
            if not isinstance(value, Number) or found.type not in _NUMBERS:
                raise Unconvertible("only numbers can be compared by < and >")
        elif found.type and not is_primitive(found.type):
            raise Unconvertible(f"{text} is a {found.type}, which is no value to compare")
        compared = f"{_OPERATORS[test.operator]} {_render_literal(value)}"
        if found.is_list:
            self.caveats.append(
                f"{found.last} is a list, which equals nothing in JSONPath; in the relay one "
                "equal item is enough"
            )
        if found.many or found.is_list:
            return f"{text}.where($this {compared}).exists()"
        return f"{text} {compared}"


def _render_literal(value: str | bool | Number) -> str:
    """https://hl7.org/fhirpath/#literals"""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote(value)


def quote(text: str) -> str:
    """https://hl7.org/fhirpath/#string"""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    if any(ord(character) < 32 for character in escaped):
        raise Unconvertible("a control character in a text")
    return f"'{escaped}'"
