"""The Bicep files as values, and their expressions as text again, so that tests can compare both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pycep import BicepParser

INFRA = Path(__file__).parents[2] / "infra"
PARSER = BicepParser()  # builds its grammar, which takes longer than to read a file
FILES = [INFRA / "main.bicep", *sorted((INFRA / "modules").glob("*.bicep"))]


@dataclass(frozen=True)
class Resource:
    file: str
    name: str
    type: str
    config: dict[str, Any]

    @property
    def properties(self) -> dict[str, Any]:
        return self.config.get("properties") or {}


@cache
def parsed(file: Path) -> dict[str, Any]:
    return PARSER.parse(file_path=file)


def resources(type_: str | None = None) -> list[Resource]:
    """All that a deployment makes; of one type, where it is named."""
    return [
        Resource(file.stem, name, one["type"], _body(one["config"]))
        for file in FILES
        for name, one in parsed(file).get("resources", {}).items()
        if not one["existing"] and type_ in (None, one["type"])
    ]


def outputs() -> Iterator[tuple[str, str, str]]:
    """(file, name, expression) of every output."""
    for file in FILES:
        for name, one in parsed(file).get("outputs", {}).items():
            yield file.stem, name, said(one["value"])


def module(name: str) -> dict[str, Any]:
    """What main.bicep hands to a module."""
    return _body(parsed(FILES[0])["modules"][name]["config"])["params"]


def said(value: Any) -> str:
    """An expression as it stands in the file, or near enough to be read."""
    match value:
        case {"operator": {"type": "conditional", "operands": o}}:
            condition, yes, no = (said(o[k]) for k in ("condition", "true_value", "false_value"))
            return f"{condition} ? {yes} : {no}"
        case {"operator": {"type": "property_accessor", "operands": o}}:
            return f"{said(o['operand_1'])}.{said(o['operand_2'])}"
        case {"operator": {"type": "index_accessor", "operands": o}}:
            return f"{said(o['operand_1'])}[{said(o['operand_2'])}]"
        case {"operator": {"type": type_, "operands": o}}:
            return f"{type_}({', '.join(said(one) for one in o.values())})"
        case {"function": {"type": type_, "parameters": parameters}}:
            given = [said(one) for one in parameters.values() if one is not None]
            return f"{type_}({', '.join(given)})"
        case dict():
            return "{" + ", ".join(f"{key}: {said(one)}" for key, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(said, value)) + "]"
    return str(value)


def _body(config: dict[str, Any]) -> dict[str, Any]:
    """What a loop or a condition makes, without it."""
    while "config" in config and ("loop_type" in config or "condition" in config):
        config = config["config"]
    return config
