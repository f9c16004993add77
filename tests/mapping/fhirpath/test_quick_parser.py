"""The quick parser makes the trees of fhirpathpy's parser, and takes no path that it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.mapping.fhirpath.parser import parse_completely, parse_path
from integration.mapping.fhirpath.quick_parser import UnknownText, parse_quickly
from integration.mapping.files import list_map_names
from integration.mapping.load import load_maps
from tests.mapping.tenant import PREFIX
from tests.randomness import limit_examples


def list_shipped_paths() -> Iterator[str]:
    for set_ in ("healthcare", "plain"):
        for entity in load_maps(set_, PREFIX, None, list_map_names(set_)).available.values():
            yield from entity.variables.values()
            yield from entity.make.values()
            noted = (*entity.unmapped_elements, *entity.expected_elements, *entity.expands)
            yield from (item.path for item in noted)
            blocks = (entity.attributes, *(expand.attributes for expand in entity.expands))
            yield from (item.path for block in blocks for item in block if item.path)


SHIPPED = sorted({*list_shipped_paths()})

TOKENS = (
    "a name given $this %x %resource 'text' '' 0 12 1.50 true false {} ( ) [ ] , . | & = != ~ < <= "
    "> >= + - * / and or xor implies in contains is as div mod where( first() exists() iif( ofType( "
    "select( .a .first() .where( .contains( [0] { } % ' ` @2024 days year FHIR.string $index é "
    "// /* */ \\"
).split()


def parse_or_refuse(path: str) -> Any:
    try:
        return parse_completely(path)
    except ValueError:
        return "refused"


def assert_same_tree(path: str) -> bool:
    """Return whether the quick parser knows the path."""
    try:
        found = parse_quickly(path)
    except UnknownText:
        return False
    assert found == parse_or_refuse(path), path
    return True


def test_every_path_of_the_shipped_maps_has_the_same_tree() -> None:
    assert len(SHIPPED) > 500
    assert [path for path in SHIPPED if not assert_same_tree(path)] == []


@pytest.mark.parametrize(
    "path",
    [
        "a.b.c",
        "a or b and c = d | e + f * g",
        "a implies b xor c",
        "a - b - c",
        "a.where(b = 'c' and (d in e)).f[1].g",
        "%a.iif(b, true, {})",
        "  a\n.  b ( ) ",
        "1 and 2.50",
        "a contains 'b'",
        "'a  b' & 'c'",
    ],
)
def test_usual_text_is_parsed_quickly(path: str) -> None:
    assert assert_same_tree(path)


@pytest.mark.parametrize(
    "path",
    ["4 'mg'", "5 days", "-1", "@2024", "a is string", "`a`", "a // b", "a /* b */ . c", "'\\''",
     "$index", "", "a.", ".a", "a b", "a..b", "a(", "a)", "and", "a.and", "year", "a = ", "é", "'a"],
)  # fmt: skip
def test_what_is_unusual_or_wrong_is_left_to_the_other_parser(path: str) -> None:
    with pytest.raises(UnknownText):
        parse_quickly(path)


def test_a_path_that_only_the_other_parser_knows_has_a_tree() -> None:
    assert parse_path("a is string") == parse_completely("a is string")
    with pytest.raises(ValueError, match="not valid FHIRPath at column 3"):
        parse_path("a b")


@limit_examples(400, nightly=5000)
@given(st.lists(st.sampled_from(TOKENS), max_size=9), st.sampled_from(["", " "]))
def test_any_text_has_the_same_tree_or_is_left_to_the_other_parser(
    tokens: list[str], separator: str
) -> None:
    assert_same_tree(separator.join(tokens))


@limit_examples(200, nightly=3000)
@given(st.sampled_from(SHIPPED), st.data())
def test_a_changed_path_has_the_same_tree_or_is_left_to_the_other_parser(
    path: str, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(path)))
    last = data.draw(st.integers(first, min(len(path), first + 4)))
    assert_same_tree(path[:first] + data.draw(st.sampled_from(["", " ", *TOKENS])) + path[last:])
