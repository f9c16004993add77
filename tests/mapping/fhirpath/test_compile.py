"""What a compiled path tells of itself."""

from __future__ import annotations

import pytest

from integration.mapping.fhirpath.compile import compile_path


@pytest.mark.parametrize(
    ("path", "needs"),
    [
        ("name.given.first()", {"name"}),
        ("(name.where(use = 'usual') | contact.name).first()", {"name", "contact"}),
        ("%home.line.skip(1)", {"%home"}),
        ("iif(%a.exists(), name, contact.name)", {"name", "contact"}),
        ("iif(%a.exists(), name)", {"name"}),
        ("name.where(use.exists()).family", {"name"}),
        ("name[0].family", {"name"}),
        ("gender = 'male'", {"gender"}),
        ("{}", set()),
        ("name.exists()", None),
        ("name.empty()", None),
        ("name.count()", None),
        ("gender & 'x'", None),
        ("'constant'", None),
        ("active or true", None),
        ("Patient.name", None),
        ("iif(active, 'yes', gender)", None),
    ],
)
def test_the_needs_of_a_path_are_the_elements_without_which_it_finds_nothing(
    path: str, needs: set[str] | None
) -> None:
    assert compile_path(path).needs == needs


def test_a_compiled_path_lists_its_variables_and_elements() -> None:
    path = compile_path("%a.where(use = '%b').given | name.family")
    assert path.variables == {"a"}
    assert path.elements == {"use", "given", "name", "family"}
