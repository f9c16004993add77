"""The fast paths of a map, each built when it is first needed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from integration.mapping.fhirpath.compile import compile_path
from integration.mapping.fhirpath.fast_path import FastPath, TypeNames, build_fast_path


class FastPaths(dict[str, FastPath | None]):
    """The fast paths by path, for a focus of one type; each is built when first needed."""

    def __init__(self, type_: str | None, variables: Mapping[str, TypeNames]) -> None:
        self._type, self._variables = type_, variables

    def __missing__(self, path: str) -> FastPath | None:
        tree = compile_path(path).tree
        return self.setdefault(path, build_fast_path(tree, self._type, self._variables))


class FastPathPlan(dict[str | None, FastPaths]):
    """The fast paths of a map by the type of their focus.

    `types` has the variables whose values are all of one type.
    """

    def __init__(self, type_: str | None, variables: Mapping[str, str]) -> None:
        self.types: dict[str, TypeNames] = dict.fromkeys(
            ("resource", "rootResource"), frozenset({type_})
        )
        self.types["today"] = frozenset({"date"})
        for name, path in variables.items():
            fast_path = self[type_][path]
            if fast_path is not None and len(fast_path.types) < 2:
                self.types[name] = fast_path.types

    def __missing__(self, type_: str | None) -> FastPaths:
        return self.setdefault(type_, FastPaths(type_, self.types))


@lru_cache(maxsize=64)
def get_plan(type_: str | None, variables: tuple[tuple[str, str], ...]) -> FastPathPlan:
    return FastPathPlan(type_, dict(variables))
