"""JSONPath as the toolkit's element maps use it, read into a small tree. Pure.

The toolkit's plug-ins are .NET, where JSONPath is Json.NET's SelectToken; what it takes is taken
here: https://www.newtonsoft.com/json/help/html/QueryJsonSelectTokenJsonPath.htm
Its documentation leaves the dot out of some filters (`@use`), which Json.NET takes, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

# The column of the element map takes no more.
MOST = 5000
_DEEPEST = 20

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*")
_WHOLE = re.compile(r"-?\d{1,9}")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_OPERATOR = re.compile(r"===|!==|==|!=|<>|<=|>=|<|>")
_ALIASES = {"===": "==", "!==": "!=", "<>": "!="}
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


class NotRead(ValueError):
    """Why an element map cannot be carried over."""


@dataclass(frozen=True, slots=True)
class Field:
    """`.name`, `['name']`"""

    name: str


@dataclass(frozen=True, slots=True)
class Index:
    """`[0]`; -1 is `[-1:]`, the last one"""

    at: int


@dataclass(frozen=True, slots=True)
class Every:
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
class Both:
    """`… && …`"""

    tests: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """`… || …`; `mixed` when an `&&` beside it has no brackets of its own"""

    tests: tuple[Test, ...]
    mixed: bool


Step = Field | Index | Every | Filter
Path = tuple[Step, ...]
Test = Exists | Compare | Both | Either


def parse(text: str) -> Path:
    """The steps from the root. Raises NotRead with the place and the reason."""
    if len(text) > MOST:
        raise NotRead(f"longer than {MOST} characters")
    reader = _Reader(text.strip())
    rooted = reader.takes("$")
    path = reader.steps(bare=not rooted)
    if reader.at < len(reader.text):
        raise reader.trouble("nothing more was expected")
    return path


class _Reader:
    """Reads from left to right; `at` is where it is."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def trouble(self, why: str) -> NotRead:
        return NotRead(f"character {self.at + 1}: {why}")

    def takes(self, token: str) -> bool:
        found = self.text.startswith(token, self.at)
        self.at += len(token) if found else 0
        return found

    def wants(self, token: str) -> None:
        self.space()
        if not self.takes(token):
            raise self.trouble(f"{token} was expected")

    def match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found[0] if found else None

    def space(self) -> None:
        self.match(_SPACE)

    def steps(self, *, bare: bool) -> Path:
        """`bare`: the first name may stand without its dot, as in `name[0]` and `@use`."""
        found: list[Step] = []
        name = self.match(_NAME) if bare else None
        if name:
            found.append(Field(name))
        while True:
            if self.takes(".."):
                raise self.trouble("`..` searches every level: name the element instead")
            if self.takes("."):
                found.append(self.field())
            elif self.takes("["):
                found.append(self.bracket())
            else:
                return tuple(found)

    def field(self) -> Field:
        if self.takes("*"):
            raise self.trouble("`.*` takes every element: name the element instead")
        name = self.match(_NAME)
        if name is None:
            raise self.trouble("the name of an element was expected")
        return Field(name)

    def bracket(self) -> Step:
        self.space()
        step: Step
        if self.takes("*"):
            step = Every()
        elif self.takes("?"):
            step = Filter(self.deeper(self.either))
        elif self.text.startswith(("'", '"'), self.at):
            step = Field(self.quoted())
        else:
            step = self.index()
        self.wants("]")
        return step

    def index(self) -> Index:
        number = self.match(_WHOLE)
        self.space()
        if number == "-1" and self.takes(":"):
            return Index(-1)
        if number is None or number.startswith("-") or self.text.startswith((":", ","), self.at):
            raise self.trouble("one position was expected, as [0], or [-1:] for the last")
        return Index(int(number))

    def deeper(self, read: Callable[[], Test]) -> Test:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.trouble("nested too deeply")
        found = read()
        self.depth -= 1
        return found

    def either(self) -> Test:
        tests = [self.both()]
        while self.another("||"):
            tests.append(self.both())
        mixed = any(count > 1 for _, count in tests)
        return tests[0][0] if len(tests) == 1 else Either(tuple(test for test, _ in tests), mixed)

    def both(self) -> tuple[Test, int]:
        tests = [self.one()]
        while self.another("&&"):
            tests.append(self.one())
        return (tests[0] if len(tests) == 1 else Both(tuple(tests))), len(tests)

    def another(self, operator: str) -> bool:
        self.space()
        return self.takes(operator)

    def one(self) -> Test:
        self.space()
        if self.takes("("):
            test = self.deeper(self.either)
            self.wants(")")
            return test
        if not self.takes("@"):
            raise self.trouble("@ was expected")
        path = self.steps(bare=True)
        self.space()
        operator = self.match(_OPERATOR)
        if operator is None:
            return Exists(path)
        self.space()
        return Compare(path, _ALIASES.get(operator, operator), self.value())

    def value(self) -> str | bool | Number | None:
        if self.text.startswith(("'", '"'), self.at):
            return self.quoted()
        number = self.match(_NUMBER)
        if number is not None:
            return Number(number)
        word = self.match(_NAME)
        if word not in _WORDS:
            raise self.trouble("text in quotes, a number, true, false or null was expected")
        return _WORDS[word]

    def quoted(self) -> str:
        quote, found = self.text[self.at], []
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] != quote:
            self.takes("\\")
            found.append(self.text[self.at : self.at + 1])
            self.at += 1
        if not self.takes(quote):
            raise self.trouble("a quote is not closed")
        return "".join(found)
