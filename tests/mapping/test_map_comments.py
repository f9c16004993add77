"""What the comments of a map say reaches whoever reads the map as a table."""

from __future__ import annotations

import pytest

from integration.mapping import files, load
from integration.mapping.map_comments import read_comments

TEXT = """\
# A map of places.
#
# Two lines
# of a second paragraph.

resource = "Location"

# Where rows go.
[row]
table = "account" # it is there in every organisation
# Which version.
version_column = "v"

# -- what people see: 1 and 2 ----------

# Of what follows.

# Before the block,
# in two lines.
[[attribute]]
column = "name"
# Inside of it.
path = "name.where(text != '# no comment')" # behind a value

[[attribute]]
column = 'b#'
path = "a \\" # b"

# Before a blank line.

[[expand]] # at the block
path = "identifier"
[[expand.attribute]]
# Of the child's column.
column = "c"
"""


def lines_with(text: str) -> list[int]:
    return [number for number, line in enumerate(TEXT.splitlines(), 1) if text in line]


COMMENTS = read_comments(TEXT, "m.toml")


def test_what_stands_before_the_first_key_is_about_the_map() -> None:
    assert COMMENTS.about == ("A map of places.", "Two lines of a second paragraph.")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[row]", "Where rows go."),
        ('table = "account"', "it is there in every organisation"),
        ("version_column", "Which version."),
        ("[[expand]]", "Before a blank line. at the block"),
        ("[[expand.attribute]]", "Of the child's column."),
    ],
)
def test_a_comment_is_about_what_follows_or_stands_before_it(line: str, said: str) -> None:
    (number,) = lines_with(line)
    assert COMMENTS.notes[f"m.toml:{number}"] == said


def test_all_comments_of_a_column_are_about_the_column() -> None:
    first, second = lines_with("[[attribute]]")
    assert COMMENTS.notes[f"m.toml:{first}"] == (
        "Of what follows. Before the block, in two lines. Inside of it. behind a value"
    )
    assert f"m.toml:{second}" not in COMMENTS.notes


def test_a_rule_with_a_title_begins_a_section() -> None:
    first, second = lines_with("[[attribute]]")
    assert COMMENTS.sections[f"m.toml:{first}"] == "what people see: 1 and 2"
    assert COMMENTS.sections[f"m.toml:{second}"] == "what people see: 1 and 2"


@pytest.mark.parametrize("set_", ["healthcare", "plain"])
def test_every_comment_of_a_shipped_map_is_found(set_: str) -> None:
    for file in files.read_map_files(set_, "new"):
        found = read_comments(file.text, file.name)
        said = " ".join([*found.about, *found.notes.values(), *found.sections.values()])
        for line in file.text.splitlines():
            if line.startswith("# ") and not line.startswith("# --"):
                assert line.lstrip("# ") in said, f"{file.name}: {line}"


def test_the_places_are_those_of_the_map() -> None:
    map_files = files.read_map_files("healthcare")
    texts = {file.name: file.text for file in map_files}
    entity = load.build_maps(map_files).entities["Patient"]
    comments = read_comments(texts["patient.toml"], "patient.toml")
    (column,) = [one for one in entity.attributes if one.column == "birthdate"]
    assert "an invented day" in comments.notes[column.defined_at]
