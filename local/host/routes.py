"""ASP.NET route templates: parse, match a path, find templates that overlap. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import unquote

# https://learn.microsoft.com/aspnet/core/fundamentals/routing#route-constraints
_GUID = re.compile(r"[{(]?[0-9a-f]{8}(-?)(?:[0-9a-f]{4}\1){3}[0-9a-f]{12}[)}]?", re.IGNORECASE)
_PLAIN: dict[str, Callable[[str], object]] = {
    "guid": _GUID.fullmatch,
    "int": lambda v: re.fullmatch(r"[+-]?\d+", v) and -(2**31) <= int(v) < 2**31,
    "long": lambda v: re.fullmatch(r"[+-]?\d+", v) and -(2**63) <= int(v) < 2**63,
    "bool": lambda v: v.lower() in ("true", "false"),
    "alpha": re.compile(r"[A-Za-z]*").fullmatch,
    "required": bool,
}
_SIZED: dict[str, Callable[[str, list[int]], bool]] = {
    "minlength": lambda v, n: len(v) >= n[0],
    "maxlength": lambda v, n: len(v) <= n[0],
    "length": lambda v, n: n[0] <= len(v) <= n[-1],
    "min": lambda v, n: v.isdecimal() and int(v) >= n[0],
    "max": lambda v, n: v.isdecimal() and int(v) <= n[0],
    "range": lambda v, n: v.isdecimal() and n[0] <= int(v) <= n[-1],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    name: str
    optional: bool
    catch_all: bool
    default: str | None
    constraints: tuple[Callable[[str], object], ...]

    def accepts(self, value: str) -> bool:
        return all(check(value) for check in self.constraints)


@dataclass(frozen=True, slots=True)
class Segment:
    parts: tuple[str | Parameter, ...]

    @property
    def only_parameter(self) -> Parameter | None:
        first = self.parts[0] if len(self.parts) == 1 else None
        return first if isinstance(first, Parameter) else None

    def match(self, text: str) -> dict[str, str] | None:
        pattern = "".join(
            "(.+?)" if isinstance(part, Parameter) else re.escape(part) for part in self.parts
        )
        found = re.fullmatch(pattern, text, re.IGNORECASE | re.DOTALL)
        if found is None:
            return None
        parameters = [part for part in self.parts if isinstance(part, Parameter)]
        pairs = list(zip(parameters, found.groups(), strict=True))
        return {p.name: v for p, v in pairs} if all(p.accepts(v) for p, v in pairs) else None


Template = tuple[Segment, ...]


def parse(template: str) -> Template:
    """Parse a template. Raises ValueError for syntax that ASP.NET or this host does not know."""
    return tuple(_parse_segment(text) for text in _split(template.strip("/"), "/") if text)


def match(template: Template, path: str) -> dict[str, str] | None:
    """Return the route parameters if the raw path matches, else None. Absent ones are left out."""
    texts = [_decode(text) for text in path.removeprefix("/").removesuffix("/").split("/")]
    texts = [] if texts == [""] else texts
    values: dict[str, str] = {}
    for position, segment in enumerate(template):
        parameter = segment.only_parameter
        if parameter and parameter.catch_all:
            rest = "/".join(texts[position:]) or parameter.default
            return {**values, parameter.name: rest} if rest else values
        if position >= len(texts):
            if parameter is None or not (parameter.optional or parameter.default is not None):
                return None
            if parameter.default is not None:
                values[parameter.name] = parameter.default
        elif (found := segment.match(texts[position])) is None:
            return None
        else:
            values.update(found)
    return values if len(texts) <= len(template) else None


def can_overlap(left: Template, right: Template) -> bool:
    """Whether some path may match both. Two parameters count as overlapping."""
    if not left or not right:
        return all(_is_optional(segment) for segment in (*left, *right))
    first, second = left[0], right[0]
    if any(s.only_parameter and s.only_parameter.catch_all for s in (first, second)):
        return True
    return _can_match_same(first, second) and can_overlap(left[1:], right[1:])


def can_hide(earlier: Template, later: Template) -> bool:
    """Whether the earlier template may match paths meant for the later one."""
    return can_overlap(earlier, later) and not _is_more_specific(earlier, later)


def _is_more_specific(left: Template, right: Template) -> bool:
    """Whether the left template is more specific where the two first differ."""
    for first, second in zip(left, right, strict=False):
        if (mine := _compute_weight(first)) != (theirs := _compute_weight(second)):
            return mine > theirs
    return len(left) > len(right)


def _compute_weight(segment: Segment) -> int:
    parameter = segment.only_parameter
    if parameter is None:
        return 3
    return 0 if parameter.catch_all else 1 + bool(parameter.constraints)


def _is_optional(segment: Segment) -> bool:
    found = segment.only_parameter
    return bool(found and (found.optional or found.catch_all or found.default is not None))


def _can_match_same(first: Segment, second: Segment) -> bool:
    literal = next((s.parts[0] for s in (first, second) if isinstance(s.parts[0], str)), None)
    if literal is None or any(len(s.parts) > 1 for s in (first, second)):
        return True
    return first.match(literal) is not None and second.match(literal) is not None


def _decode(text: str) -> str:
    # Kestrel decodes a path except for %2F: https://github.com/dotnet/aspnetcore/issues/11544
    return unquote(re.sub("%2f", lambda found: "%25" + found[0][1:], text, flags=re.IGNORECASE))


def _parse_segment(text: str) -> Segment:
    parts: list[str | Parameter] = []
    for literal, inner in re.findall(r"((?:[^{}]|\{\{|\}\})+)|\{((?:[^{}]|\{\{|\}\})+)\}", text):
        raw = (literal or inner).replace("{{", "{").replace("}}", "}")
        parts.append(raw if literal else _parse_parameter(raw))
    return Segment(tuple(parts))


def _parse_parameter(text: str) -> Parameter:
    head, *constraints = _split(text, ":")
    name, has_default, default = head.partition("=")
    bare = name.lstrip("*").rstrip("?")
    if constraints and (optional := constraints[-1].endswith("?")):
        constraints[-1] = constraints[-1].removesuffix("?")
    else:
        optional = name.endswith("?")
    if not bare.isidentifier():
        raise ValueError(f"route parameter {{{text}}} cannot be read")
    checks = tuple(_parse_constraint(constraint) for constraint in constraints)
    return Parameter(
        name=bare,
        optional=optional,
        catch_all=name.startswith("*"),
        default=default if has_default else None,
        constraints=checks,
    )


def _parse_constraint(text: str) -> Callable[[str], object]:
    name, _, rest = text.partition("(")
    argument = rest.removesuffix(")")
    if name in _PLAIN and not rest:
        return _PLAIN[name]
    if name == "regex":
        return re.compile(argument, re.IGNORECASE).search
    if name in _SIZED and re.fullmatch(r"\d+(,\s*\d+)?", argument):
        numbers, check = [int(n) for n in argument.split(",")], _SIZED[name]
        return lambda value: check(value, numbers)
    raise ValueError(f"route constraint {text!r} is not known")


def _split(text: str, separator: str) -> Iterable[str]:
    """Split outside braces and parentheses."""
    depth, piece = 0, ""
    for letter in text:
        depth += (letter in "({") - (letter in ")}")
        if letter == separator and depth == 0:
            yield piece
            piece = ""
        else:
            piece += letter
    yield piece
