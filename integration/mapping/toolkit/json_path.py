"""Parse JSONPath as the toolkit's element maps use it. Pure.

The toolkit's plug-ins are .NET, where JSONPath is Json.NET's SelectToken; the same is accepted:
https://www.newtonsoft.com/json/help/html/QueryJsonSelectTokenJsonPath.htm
Its documentation leaves the dot out of some filters (`@use`), which Json.NET takes, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

# Characters that the column of the element map holds.
MAX_LENGTH = 5000
_MAX_DEPTH = 20

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*")
_INTEGER = re.compile(r"-?\d{1,9}")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_OPERATOR = re.compile(r"===|!==|==|!=|<>|<=|>=|<|>")
_ALIASES = {"===": "==", "!==": "!=", "<>": "!="}
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


class Unconvertible(ValueError):
    """The reason why a map of the toolkit cannot be converted."""


@dataclass(frozen=True, slots=True)
class Field:
    """`.name`, `['name']`"""

    name: str


@dataclass(frozen=True, slots=True)
class Index:
    """`[0]`; -1 is `[-1:]`, the last item"""

    position: int


@dataclass(frozen=True, slots=True)
class Wildcard:
    """`[*]`"""


@dataclass(frozen=True, slots=True)
class Filter:
    """`[?(…)]`"""

    test: Test


@dataclass(frozen=True, slots=True)
class Exists:
    """`@.name`"""

    path: Path


@dataclass(frozen=True, slots=True)
class Compare:
    """`@.name == 'text'`; a number keeps its digits in `Number`"""

    path: Path
    operator: str
    value: str | bool | Number | None


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it is written."""

    text: str


@dataclass(frozen=True, slots=True)
class And:
    """`… && …`"""

    tests: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """`… || …`; `mixed`: it has an `&&` beside it without brackets"""

    tests: tuple[Test, ...]
    mixed: bool


Step = Field | Index | Wildcard | Filter
Path = tuple[Step, ...]
Test = Exists | Compare | And | Or


def parse(text: str) -> Path:
    """Parse the steps from the root. Raises Unconvertible with the place and the reason."""
    if len(text) > MAX_LENGTH:
        raise Unconvertible(f"longer than {MAX_LENGTH} characters")
    parser = _Parser(text.strip())
    rooted = parser.accept("$")
    path = parser.parse_steps(bare=not rooted)
    if parser.position < len(parser.text):
        raise parser.make_error("nothing more was expected")
    return path


class _Parser:
    """Parses from left to right; `position` is that of the next character."""

    def __init__(self, text: str) -> None:
        self.text, self.position, self.depth = text, 0, 0

    def make_error(self, why: str) -> Unconvertible:
        return Unconvertible(f"character {self.position + 1}: {why}")

    def accept(self, token: str) -> bool:
        found = self.text.startswith(token, self.position)
        self.position += len(token) if found else 0
        return found

    def expect(self, token: str) -> None:
        self.skip_space()
        if not self.accept(token):
            raise self.make_error(f"{token} was expected")

    def match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.position)
        self.position = found.end() if found else self.position
        return found[0] if found else None

    def skip_space(self) -> None:
        self.match(_SPACE)

    def parse_steps(self, *, bare: bool) -> Path:
        """`bare`: the first name needs no dot before it, as in `name[0]` and `@use`."""
        found: list[Step] = []
        name = self.match(_NAME) if bare else None
        if name:
            found.append(Field(name))
        while True:
            if self.accept(".."):
                raise self.make_error("`..` searches every level: name the element instead")
            if self.accept("."):
                found.append(self.parse_field())
            elif self.accept("["):
                found.append(self.parse_bracket())
            else:
                return tuple(found)

    def parse_field(self) -> Field:
        if self.accept("*"):
            raise self.make_error("`.*` takes every element: name the element instead")
        name = self.match(_NAME)
        if name is None:
            raise self.make_error("the name of an element was expected")
        return Field(name)

    def parse_bracket(self) -> Step:
        self.skip_space()
        step: Step
        if self.accept("*"):
            step = Wildcard()
        elif self.accept("?"):
            step = Filter(self.parse_nested(self.parse_or))
        elif self.text.startswith(("'", '"'), self.position):
            step = Field(self.parse_quoted())
        else:
            step = self.parse_index()
        self.expect("]")
        return step

    def parse_index(self) -> Index:
        number = self.match(_INTEGER)
        self.skip_space()
        if number == "-1" and self.accept(":"):
            return Index(-1)
        if (
            number is None
            or number.startswith("-")
            or self.text.startswith((":", ","), self.position)
        ):
            raise self.make_error("one position was expected, as [0], or [-1:] for the last")
        return Index(int(number))

    def parse_nested(self, read: Callable[[], Test]) -> Test:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.make_error("nested too deeply")
        found = read()
        self.depth -= 1
        return found

    def parse_or(self) -> Test:
        tests = [self.parse_and()]
        while self.accept_operator("||"):
            tests.append(self.parse_and())
        mixed = any(count > 1 for _, count in tests)
        return tests[0][0] if len(tests) == 1 else Or(tuple(test for test, _ in tests), mixed)

    def parse_and(self) -> tuple[Test, int]:
        tests = [self.parse_term()]
        while self.accept_operator("&&"):
            tests.append(self.parse_term())
        return (tests[0] if len(tests) == 1 else And(tuple(tests))), len(tests)

    def accept_operator(self, operator: str) -> bool:
        self.skip_space()
        return self.accept(operator)

    def parse_term(self) -> Test:
        self.skip_space()
        if self.accept("("):
            test = self.parse_nested(self.parse_or)
            self.expect(")")
            return test
        if not self.accept("@"):
            raise self.make_error("@ was expected")
        path = self.parse_steps(bare=True)
        self.skip_space()
        operator = self.match(_OPERATOR)
        if operator is None:
            return Exists(path)
        self.skip_space()
        return Compare(path, _ALIASES.get(operator, operator), self.parse_value())

    def parse_value(self) -> str | bool | Number | None:
        if self.text.startswith(("'", '"'), self.position):
            return self.parse_quoted()
        number = self.match(_NUMBER)
        if number is not None:
            return Number(number)
        word = self.match(_NAME)
        if word not in _WORDS:
            raise self.make_error("text in quotes, a number, true, false or null was expected")
        return _WORDS[word]

    def parse_quoted(self) -> str:
        quote, found = self.text[self.position], []
        self.position += 1
        while self.position < len(self.text) and self.text[self.position] != quote:
            self.accept("\\")
            found.append(self.text[self.position : self.position + 1])
            self.position += 1
        if not self.accept(quote):
            raise self.make_error("a quote is not closed")
        return "".join(found)
