"""Mutate the structure of a JSON delivery."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from fuzz.values import MARKER, NAMES, make_text, make_token

# Placeholders for text that a tree cannot hold: broken tokens and repeated keys.
_RAW, _TWIN = "\x02raw{}\x02", "\x02twin{}\x02"

# Limits of the places visited in a tree and of the entries kept in a bundle: large ones are rare.
_PLACES = 4000
_ENTRIES = 30

Node = Any
Place = tuple[Any, Any]  # a container, and the key or index in it


class MutatedTree:
    """A tree under mutation, and the raw texts that replace some of its values."""

    def __init__(self, root: Node, random: Random) -> None:
        self.holder: list[Node] = [root]
        self.random = random
        self.raw: list[str] = []
        self.twins = 0

    def mutate(self, times: int) -> bytes:
        """Add the marker to some values, mutate the tree this many times, and return its text."""
        if self.random.random() < 0.95:
            _thin(self.holder[0], self.random)
        places = list(_list_places(self.holder))
        self._add_markers(places)
        likely = [place for place in places if place[1] in NAMES] or places
        for _ in range(times):
            place = self.random.choice(likely if self.random.random() < 0.4 else places)
            self.random.choice(_MUTATIONS)(self, place, places)
        return self._render().encode("utf-8", "surrogatepass")

    def add_token(self) -> str:
        """Return a placeholder for raw text, which may not be valid JSON."""
        self.raw.append(make_token(self.random))
        return _RAW.format(len(self.raw) - 1)

    def add_twin(self, key: str) -> str:
        """Return a key that becomes `key` again in the text, so that it appears twice."""
        self.twins += 1
        return key + _TWIN.format(self.twins)

    def _add_markers(self, places: list[Place]) -> None:
        """Add the marker to some strings. It must never appear in an issue."""
        texts = [place for place in places if isinstance(_get(place), str)]
        for place in self.random.sample(texts, min(len(texts), self.random.randrange(6))):
            _set(place, str(_get(place)) + MARKER)

    def _render(self) -> str:
        ascii_ = self.random.random() < 0.5
        written = json.dumps(self.holder[0], ensure_ascii=ascii_, indent=self._choose_indent())
        for number in range(1, self.twins + 1):
            written = written.replace(json.dumps(_TWIN.format(number))[1:-1], "")
        for number, raw in enumerate(self.raw):
            written = written.replace(json.dumps(_RAW.format(number)), raw)
        return written

    def _choose_indent(self) -> int | None:
        return 2 if self.random.random() < 0.2 else None


def _thin(root: Node, random: Random) -> None:
    """Keep few entries of a large bundle, so that more cases fit into the time."""
    entries = root.get("entry") if isinstance(root, dict) else None
    if isinstance(entries, list) and len(entries) > _ENTRIES:
        begin = random.randrange(len(entries) - _ENTRIES)
        root["entry"] = entries[begin : begin + random.randint(1, _ENTRIES)]


def _list_places(holder: list[Node]) -> Iterator[Place]:
    """Yield the places of the tree breadth first: the envelope before its contents."""
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
        return None  # an earlier mutation has removed it


def _set(place: Place, value: Node) -> None:
    container, key = place
    if isinstance(container, dict) or key < len(container):
        container[key] = value


def _drop(tree: MutatedTree, place: Place, places: list[Place]) -> None:
    container, key = place
    if container is tree.holder:
        return
    if isinstance(container, dict):
        container.pop(key, None)
    elif key < len(container):
        del container[key]


def _replace(tree: MutatedTree, place: Place, places: list[Place]) -> None:
    _set(place, tree.add_token())


def _replace_with_text(tree: MutatedTree, place: Place, places: list[Place]) -> None:
    _set(place, make_text(tree.random))


def _double(tree: MutatedTree, place: Place, places: list[Place]) -> None:
    """Repeat an element of a list, or a key with another value."""
    container, key = place
    if isinstance(container, dict):
        container[tree.add_twin(str(key))] = (
            tree.add_token() if tree.random.random() < 0.5 else _get(place)
        )
    elif container is not tree.holder and key < len(container):
        times = tree.random.choice((1, 1, 2, 20, 500))
        container[key:key] = [container[key]] * (times if _is_small(container[key]) else 1)


def _swap(tree: MutatedTree, place: Place, places: list[Place]) -> None:
    other = tree.random.choice(places)
    first, second = _copy(_get(place)), _copy(_get(other))
    _set(place, second)
    _set(other, first)


def _graft(tree: MutatedTree, place: Place, places: list[Place]) -> None:
    """Copy the value of another place."""
    found = _get(tree.random.choice(places))
    if _is_small(found):
        _set(place, _copy(found))


def _wrap(tree: MutatedTree, place: Place, places: list[Place]) -> None:
    value = _get(place)
    key = tree.random.choice(NAMES)
    _set(place, tree.random.choice(([value], [value, value], {key: value}, [[value]])))


def _unwrap(tree: MutatedTree, place: Place, places: list[Place]) -> None:
    value = _get(place)
    if isinstance(value, dict | list) and value:
        inner = list(value.values()) if isinstance(value, dict) else value
        _set(place, tree.random.choice(inner))


def _rename(tree: MutatedTree, place: Place, places: list[Place]) -> None:
    container, key = place
    if isinstance(container, dict) and key in container:
        container[tree.random.choice((*NAMES, key.upper(), "", "\ud800", "_" + key))] = (
            container.pop(key)
        )


def _add(tree: MutatedTree, place: Place, places: list[Place]) -> None:
    node = _get(place)
    if isinstance(node, dict):
        node[tree.random.choice(NAMES)] = tree.add_token()
    elif isinstance(node, list):
        node.insert(tree.random.randrange(len(node) + 1), tree.add_token())


def _shuffle(tree: MutatedTree, place: Place, places: list[Place]) -> None:
    node = _get(place)
    if isinstance(node, list):
        tree.random.shuffle(node)


def _is_small(node: Node) -> bool:
    return len(str(node)) < 4000


def _copy(node: Node) -> Node:
    """Copy a value, so that no node contains itself."""
    return json.loads(json.dumps(node)) if isinstance(node, dict | list) else node


_MUTATIONS: tuple[Callable[[MutatedTree, Place, list[Place]], None], ...] = (
    *(
        _drop,
        _replace,
        _replace,
        _replace,
        _replace_with_text,
        _replace_with_text,
        _double,
        _swap,
        _graft,
    ),
    *(_wrap, _unwrap, _rename, _add, _add, _shuffle),
)
