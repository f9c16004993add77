"""The incidents that can be practised are wrong where they say so."""

from __future__ import annotations

from pathlib import Path

from local.incidents import write_files
from local.processes import PROJECT

SHIPPED = PROJECT / "integration/mapping/maps/healthcare/patient.toml"


def test_each_wrong_map_differs_from_the_shipped_one_in_one_line(tmp_path: Path) -> None:
    write_files(tmp_path / "files")
    shipped = SHIPPED.read_text("utf-8").splitlines()
    wrong = sorted((tmp_path / "files").glob("*/patient.toml"))
    assert [path.parent.name for path in wrong] == ["map-error", "wrong-column"]
    for path in wrong:
        lines = path.read_text("utf-8").splitlines()
        pairs = zip(shipped, lines, strict=True)
        assert sum(before != after for before, after in pairs) == 1
