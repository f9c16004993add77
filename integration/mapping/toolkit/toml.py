"""Render an entity map as TOML with comments, for people to edit. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from integration.mapping.model import AttributeMap, EntityMap, ExpandMap, Kind

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class ExpandBlock:
    """An expand with its comment, and the comments of its attributes."""

    map: ExpandMap
    comment: tuple[str, ...]
    comments: tuple[tuple[str, ...], ...]


def render(
    entity: EntityMap,
    heading: Sequence[str],
    comments: Sequence[Sequence[str]],
    expands: Sequence[ExpandBlock],
) -> str:
    """Render a file. `heading` is the comment at the top; `comments` has one for each attribute."""
    return "\n".join(_render_lines(entity, heading, comments, expands)) + "\n"


def _render_lines(
    entity: EntityMap,
    heading: Sequence[str],
    comments: Sequence[Sequence[str]],
    expands: Sequence[ExpandBlock],
) -> Iterator[str]:
    yield from _render_comments(heading)
    yield ""
    yield f"resource = {_render_value(entity.resource)}"
    if not entity.enabled:
        yield "enabled = false # disabled in the toolkit; name this file in MAPS_ENABLED to use it"
    yield from ("", "[row]")
    for name in ("table", "entity_set", "key", "id_column", "version_column", "updated_column"):
        yield f"{name} = {_render_value(getattr(entity, name))}"
    if entity.kind_column is not None:
        yield f"kind_column = {_render_value(entity.kind_column)}"
    for attribute, comment in zip(entity.attributes, comments, strict=True):
        yield from _render_attribute(attribute, comment, "attribute")
    for expand in expands:
        yield ""
        yield from _render_comments(expand.comment)
        yield "[[expand]]"
        for name in ("path", "table", "entity_set", "key", "parent", "match", "remove"):
            yield f"{name} = {_render_value(getattr(expand.map, name))}"
        for attribute, comment in zip(expand.map.attributes, expand.comments, strict=True):
            yield from _render_attribute(attribute, comment, "expand.attribute")


def _render_attribute(attribute: AttributeMap, comment: Sequence[str], block: str) -> Iterator[str]:
    yield ""
    yield from _render_comments(comment)
    yield f"[[{block}]]"
    yield f"column = {_render_value(attribute.column)}"
    if attribute.path is not None:
        yield f"path = {_render_value(attribute.path)}"
    if attribute.kind is not Kind.COPY:
        yield f"kind = {_render_value(attribute.kind)}"
    if attribute.concept is not None:
        yield f"concept = {attribute.concept}"
    if attribute.default is not None:
        yield f"default = {_render_value(attribute.default)}"
    if attribute.choices:
        pairs = [
            f"{_render_key(code)} = {options[0]}" for code, options in attribute.choices.items()
        ]
        line = f"choices = {{ {', '.join(pairs)} }}"
        if len(line) <= _WIDTH:
            yield line
        else:
            yield f"[{block}.choices]"
            yield from pairs


def _render_comments(texts: Sequence[str]) -> Iterator[str]:
    """Render comments. Names come from outside, so no character may end the line."""
    for text in texts:
        yield "# " + "".join(character if character.isprintable() else " " for character in text)


def _render_value(value: Any) -> str:
    """Render a value. A TOML string may hold what a JSON string does, but for the character DEL:
    https://toml.io/en/v1.0.0#string"""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_render_value, value))}]"
    plain = str(value) if isinstance(value, str) else value
    return msgspec.json.encode(plain).decode().replace("\x7f", "\\u007F")


def _render_key(text: str) -> str:
    return text if _BARE.fullmatch(text) else _render_value(text)
