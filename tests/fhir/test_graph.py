"""What hangs together, and in which order?"""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from integration.fhir.graph import find_connected_components, find_strongly_connected_components
from tests.randomness import limit_examples

Graph = dict[int, list[int]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Every node with its edges, circles and edges to itself included."""
    count = draw(st.integers(1, 9))
    node = st.integers(0, count - 1)
    return {n: draw(st.lists(node, max_size=3)) for n in range(count)}


def reach(graph: Graph, start: int) -> set[int]:
    """What can be reached from a node, itself included: slow and certain."""
    seen, left = {start}, [start]
    while left:
        for target in graph[left.pop()]:
            if target not in seen:
                seen.add(target)
                left.append(target)
    return seen


@limit_examples(200)
@given(graphs())
def test_two_nodes_are_in_one_part_exactly_when_edges_join_them(graph: Graph) -> None:
    both: Graph = {n: [*graph[n], *(m for m in graph if n in graph[m])] for n in graph}
    part_of = {
        n: number
        for number, part in enumerate(find_connected_components(graph, graph))
        for n in part
    }
    for first, second in combinations(graph, 2):
        assert (part_of[first] == part_of[second]) is (second in reach(both, first))


@limit_examples(200)
@given(graphs())
def test_two_nodes_are_in_one_knot_exactly_when_each_refers_to_the_other(graph: Graph) -> None:
    knot_of = {
        n: number
        for number, component in enumerate(find_strongly_connected_components(graph, graph))
        for n in component
    }
    for first, second in combinations(graph, 2):
        circle = second in reach(graph, first) and first in reach(graph, second)
        assert (knot_of[first] == knot_of[second]) is circle


@limit_examples(200)
@given(graphs())
def test_what_is_referred_to_comes_before_what_refers_to_it(graph: Graph) -> None:
    knot_of = {
        n: number
        for number, component in enumerate(find_strongly_connected_components(graph, graph))
        for n in component
    }
    assert all(knot_of[target] <= knot_of[n] for n in graph for target in graph[n])


@limit_examples(100)
@given(graphs())
def test_every_node_is_in_one_part_and_in_one_knot(graph: Graph) -> None:
    assert sorted(n for part in find_connected_components(graph, graph) for n in part) == sorted(
        graph
    )
    assert sorted(
        n for component in find_strongly_connected_components(graph, graph) for n in component
    ) == sorted(graph)


@limit_examples(100)
@given(graphs())
def test_components_have_a_fixed_order(graph: Graph) -> None:
    for groups in (
        find_connected_components(graph, graph),
        find_strongly_connected_components(graph, graph),
    ):
        assert all(group == sorted(group) for group in groups)
    found = find_connected_components(graph, graph)
    assert found == sorted(found)


def test_a_node_that_nothing_names_is_a_part_of_its_own() -> None:
    assert find_connected_components([5, 3], {}) == [[3], [5]]


def test_a_chain_of_a_hundred_thousand_needs_no_recursion() -> None:
    count = 100_000
    chain = {n: (n + 1,) for n in range(count - 1)}
    assert find_strongly_connected_components(range(count), chain)[0] == [count - 1]
    assert len(find_connected_components(range(count), chain)) == 1


def test_a_circle_of_a_hundred_thousand_is_one_knot() -> None:
    count = 100_000
    circle = {n: ((n + 1) % count,) for n in range(count)}
    assert len(find_strongly_connected_components(range(count), circle)) == 1
