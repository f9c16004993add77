"""Components of a graph of entries that refer to each other. Pure.

Nodes are positions; `edges[n]` are the nodes that n refers to. No function is recursive, since a
delivery may hold a chain of 100,000 entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Edges = Mapping[int, Sequence[int]]


def find_connected_components(nodes: Iterable[int], edges: Edges) -> list[list[int]]:
    """Return the groups of nodes without an edge between them, each in ascending order, by their
    first node."""
    parent = {node: node for node in nodes}

    def find_root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for node, targets in edges.items():
        for target in targets:
            first, second = find_root(node), find_root(target)
            # The smaller one is the root, so that a group is named by its first node.
            if first < second:
                parent[second] = first
            elif second < first:
                parent[first] = second
    groups: dict[int, list[int]] = {}
    for node in parent:
        groups.setdefault(find_root(node), []).append(node)
    return [sorted(group) for _, group in sorted(groups.items())]


def find_strongly_connected_components(nodes: Iterable[int], edges: Edges) -> list[list[int]]:
    """Return the strongly connected components, referenced before referencing.

    Tarjan's algorithm (https://doi.org/10.1137/0201010) with its stack made explicit.
    """
    found: list[list[int]] = []
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    open_: dict[int, None] = {}  # the nodes of unfinished components, in order
    for start in nodes:
        if start in number:
            continue
        work = [(start, iter(edges.get(start, ())))]
        number[start] = low[start] = len(number)
        open_[start] = None
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in number:
                    number[target] = low[target] = len(number)
                    open_[target] = None
                    work.append((target, iter(edges.get(target, ()))))
                    break
                if target in open_:
                    low[node] = min(low[node], number[target])
            else:
                work.pop()
                if work:
                    below = work[-1][0]
                    low[below] = min(low[below], low[node])
                if low[node] == number[node]:
                    component: list[int] = []
                    while not component or component[-1] != node:
                        component.append(open_.popitem()[0])
                    found.append(sorted(component))
    return found
