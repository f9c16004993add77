"""Harm to the structure of a delivery."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from fuzz.values import MARKER, NAMES, text, token

# What is written into the text in the end, since a tree cannot hold it.
_RAW, _TWIN = "\x02raw{}\x02", "\x02twin{}\x02"

# So much of a tree is looked at, and so many entries of a bundle are kept: large ones are rare.
_PLACES = 4000
_ENTRIES = 30

Node = Any
Place = tuple[Any, Any]  # a container, and the key or index in it


class Harmed:
    """A tree under harm, and the texts that take the place of some of its values."""

    def __init__(self, root: Node, chance: Random) -> None:
        self.holder: list[Node] = [root]
        self.chance = chance
        self.raw: list[str] = []
        self.twins = 0

    def harm(self, times: int) -> bytes:
        """The text of the tree, with the marker in some values, and harmed so many times."""
        if self.chance.random() < 0.95:
            _thin(self.holder[0], self.chance)
        places = list(_places(self.holder))
        self._mark(places)
        likely = [place for place in places if place[1] in NAMES] or places
        for _ in range(times):
            where = self.chance.choice(likely if self.chance.random() < 0.4 else places)
            self.chance.choice(_HARMS)(self, where, places)
        return self._text().encode("utf-8", "surrogatepass")

    def token(self) -> str:
        """What stands in the tree for a text that is no value."""
        self.raw.append(token(self.chance))
        return _RAW.format(len(self.raw) - 1)

    def twin(self, key: str) -> str:
        """The same key, and another one for the tree."""
        self.twins += 1
        return key + _TWIN.format(self.twins)

    def _mark(self, places: list[Place]) -> None:
        """Values that are text get the marker: without any harm too, it must come to no issue."""
        texts = [place for place in places if isinstance(_get(place), str)]
        for place in self.chance.sample(texts, min(len(texts), self.chance.randrange(6))):
            _set(place, str(_get(place)) + MARKER)

    def _text(self) -> str:
        ascii_ = self.chance.random() < 0.5
        written = json.dumps(self.holder[0], ensure_ascii=ascii_, indent=self._indent())
        for number in range(1, self.twins + 1):
            written = written.replace(json.dumps(_TWIN.format(number))[1:-1], "")
        for number, raw in enumerate(self.raw):
            written = written.replace(json.dumps(_RAW.format(number)), raw)
        return written

    def _indent(self) -> int | None:
        return 2 if self.chance.random() < 0.2 else None


def _thin(root: Node, chance: Random) -> None:
    """Few entries of many, so that many cases fit into the time."""
    entries = root.get("entry") if isinstance(root, dict) else None
    if isinstance(entries, list) and len(entries) > _ENTRIES:
        begin = chance.randrange(len(entries) - _ENTRIES)
        root["entry"] = entries[begin : begin + chance.randint(1, _ENTRIES)]


def _places(holder: list[Node]) -> Iterator[Place]:
    """Breadth first: the envelope before what is in it."""
    level: list[Place] = [(holder, 0)]
    count = 0
    while level:
        below: list[Place] = []
        for place in level:
            yield place
            count += 1
            if count >= _PLACES:
                return
            node = _get(place)
            if isinstance(node, dict):
                below += [(node, key) for key in node]
            elif isinstance(node, list):
                below += [(node, index) for index in range(len(node))]
        level = below


def _get(place: Place) -> Node:
    container, key = place
    try:
        return container[key]
    except (KeyError, IndexError):
        return None  # an earlier harm has taken it away


def _set(place: Place, value: Node) -> None:
    container, key = place
    if isinstance(container, dict) or key < len(container):
        container[key] = value


def _drop(it: Harmed, place: Place, places: list[Place]) -> None:
    container, key = place
    if container is it.holder:
        return
    if isinstance(container, dict):
        container.pop(key, None)
    elif key < len(container):
        del container[key]


def _replace(it: Harmed, place: Place, places: list[Place]) -> None:
    _set(place, it.token())


def _word(it: Harmed, place: Place, places: list[Place]) -> None:
    _set(place, text(it.chance))


def _double(it: Harmed, place: Place, places: list[Place]) -> None:
    """The same again: an element of a list, or a key with another value."""
    container, key = place
    if isinstance(container, dict):
        container[it.twin(str(key))] = it.token() if it.chance.random() < 0.5 else _get(place)
    elif container is not it.holder and key < len(container):
        times = it.chance.choice((1, 1, 2, 20, 500))
        container[key:key] = [container[key]] * (times if _is_small(container[key]) else 1)


def _swap(it: Harmed, place: Place, places: list[Place]) -> None:
    other = it.chance.choice(places)
    one, two = _copied(_get(place)), _copied(_get(other))
    _set(place, two)
    _set(other, one)


def _graft(it: Harmed, place: Place, places: list[Place]) -> None:
    """What stands elsewhere stands here too."""
    found = _get(it.chance.choice(places))
    if _is_small(found):
        _set(place, _copied(found))


def _wrap(it: Harmed, place: Place, places: list[Place]) -> None:
    value = _get(place)
    key = it.chance.choice(NAMES)
    _set(place, it.chance.choice(([value], [value, value], {key: value}, [[value]])))


def _unwrap(it: Harmed, place: Place, places: list[Place]) -> None:
    value = _get(place)
    if isinstance(value, dict | list) and value:
        inner = list(value.values()) if isinstance(value, dict) else value
        _set(place, it.chance.choice(inner))


def _rename(it: Harmed, place: Place, places: list[Place]) -> None:
    container, key = place
    if isinstance(container, dict) and key in container:
        container[it.chance.choice((*NAMES, key.upper(), "", "\ud800", "_" + key))] = container.pop(
            key
        )


def _add(it: Harmed, place: Place, places: list[Place]) -> None:
    node = _get(place)
    if isinstance(node, dict):
        node[it.chance.choice(NAMES)] = it.token()
    elif isinstance(node, list):
        node.insert(it.chance.randrange(len(node) + 1), it.token())


def _shuffle(it: Harmed, place: Place, places: list[Place]) -> None:
    node = _get(place)
    if isinstance(node, list):
        it.chance.shuffle(node)


def _is_small(node: Node) -> bool:
    return len(str(node)) < 4000


def _copied(node: Node) -> Node:
    """Nothing may end up within itself."""
    return json.loads(json.dumps(node)) if isinstance(node, dict | list) else node


_HARMS: tuple[Callable[[Harmed, Place, list[Place]], None], ...] = (
    *(_drop, _replace, _replace, _replace, _word, _word, _double, _swap, _graft),
    *(_wrap, _unwrap, _rename, _add, _add, _shuffle),
)
