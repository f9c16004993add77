"""The import ladder in integration/__init__.py, the purity of what only computes, who knows Azure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import integration

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "integration"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def name_of(path: Path) -> str:
    """`fhir.plan` for integration/fhir/plan.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


# Folders that only compute, but for the modules that send or read files; and some single modules.
COMPUTING = ("fhir", "mapping", "dataverse", "odata", "toolkit", "provision")
COMPUTING += ("fhirpath", "write_back")
NOT_PURE = ("client", "load", "files", "command")
PURE_ALONE = ("journal.keys", "operations.views", "core.model", "core.errors", "core.decimal_json")
PURE_ALONE += (
    "virtual_tables.entity_type",
    "virtual_tables.pushdown",
    "virtual_tables.odata_request",
)
PURE_ALONE += ("check.report", "check.remedies", "check.results")
PURE = [
    path
    for path in MODULES
    if (path.parent.name in COMPUTING and path.stem not in NOT_PURE) or name_of(path) in PURE_ALONE
]

# Everything a pure module may import from outside; names where only those will do.
COMPUTES: dict[str, frozenset[str] | None] = {
    "__future__": None,
    "binascii": None,
    "collections": None,
    "collections.abc": None,
    "dataclasses": None,
    "datetime": None,
    "decimal": None,
    "enum": None,
    "fhir.resources.R4B": None,
    "email.message": None,
    "email.parser": frozenset({"BytesParser"}),
    "email.policy": None,
    "email.utils": frozenset({"parsedate_to_datetime"}),
    "functools": None,
    "hashlib": None,
    "itertools": None,
    "msgspec": None,
    "pydantic": None,
    "re": None,
    "typing": None,
    "urllib.parse": None,
    "xml.etree.ElementTree": None,
    "uuid": frozenset({"UUID", "uuid5", "NAMESPACE_URL", "NAMESPACE_OID"}),
}

# Libraries of which every module computes.
COMPUTING_LIBRARIES = {"antlr4", "fhirpathpy", "integration"}

CLOCKS = {"now", "utcnow", "today", "fromtimestamp", "perf_counter", "monotonic"}
EFFECTS = {"print", "open", "input", "eval", "exec", "compile", "__import__", "breakpoint"}

# package -> the only modules that may know it
KNOWN_BY = [
    ("azure.functions", {"app.responses", "app.error_handlers"}),
    ("azure.identity", {"app.http_clients"}),
    (
        "azure.core",
        {
            "journal.azure_store",
            "journal.azure_blobs",
            "journal.azure_tables",
            "journal.azure_guard_store",
            "journal.azure_activity",
            "journal.azure_row_keys",
            "journal.azure_errors",
            "app.storage_clients",
        },
    ),
    ("azure.storage", {"journal.azure_store", "journal.azure_blobs", "app.storage_clients"}),
    (
        "azure.data",
        {
            "journal.azure_store",
            "journal.azure_tables",
            "journal.azure_guard_store",
            "journal.azure_waits",
            "journal.azure_activity",
            "journal.azure_row_keys",
            "journal.azure_data_routes",
            "app.storage_clients",
        },
    ),
    ("azure.monitor", {"app.telemetry"}),
    ("httpx", {"core.http", "app.http_clients"}),
    ("os", {"app.settings"}),
]


def folder_of(module: str) -> str:
    """The word that the ladder knows a module by: its folder, or its own name."""
    return module.partition(".")[0]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """(module, name) of every import, wherever in the file it stands."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """The modules of integration that a module imports, without the package's name."""
    found = set()
    for module, name in imports(path):
        if module == "integration":
            found.add(str(name))
        elif module.startswith("integration."):
            inner = module.removeprefix("integration.")
            is_folder = (PACKAGE / inner.replace(".", "/")).is_dir()
            found.add(f"{inner}.{name}" if is_folder else inner)
    return found


@cache
def ladder() -> dict[str, int]:
    """Each word of the ladder with the number of its rung, the top one 0."""
    lines = (integration.__doc__ or "").rpartition("below its own:")[2].splitlines()
    rungs = [line.strip() for line in lines if line.strip()]
    return {word: number for number, rung in enumerate(rungs) for word in rung.split(" | ")}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_its_place_on_the_ladder(path: Path) -> None:
    assert folder_of(name_of(path)) in ladder()


def test_every_word_of_the_ladder_is_a_module_or_a_folder() -> None:
    assert set(ladder()) <= {folder_of(name_of(path)) for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_rungs_below_its_own(path: Path) -> None:
    own = folder_of(name_of(path))
    known = {folder_of(module) for module in own_imports(path)} - {own}
    # A word without a place is the business of the test above.
    above = [word for word in known if ladder().get(word, 99) <= ladder().get(own, -1)]
    assert above == []


@pytest.mark.parametrize(("package", "allowed"), KNOWN_BY)
def test_a_package_is_known_only_where_it_belongs(package: str, allowed: set[str]) -> None:
    knowing = {
        name_of(path)
        for path in MODULES
        if any(f"{module}.".startswith(f"{package}.") for module, _ in imports(path))
    }
    assert knowing <= allowed


def test_of_the_azure_packages_the_doors_know_only_functions() -> None:
    known = {module for module, _ in imports(PROJECT / "function_app.py")}
    assert {module for module in known if module.startswith("azure")} == {"azure.functions"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_app_knows_nothing_of_tests_benchmarks_and_the_laptop(path: Path) -> None:
    roots = {module.partition(".")[0] for module, _ in imports(path)}
    assert roots.isdisjoint({"local", "tests", "bench", "faults", "fuzz", "function_app"})


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_a_pure_module_imports_only_what_computes(path: Path) -> None:
    outside = {item for item in imports(path) if folder_of(item[0]) not in COMPUTING_LIBRARIES}
    strangers = [
        f"{module}.{name}"
        for module, name in outside
        if module not in COMPUTES
        or (COMPUTES[module] is not None and name not in (COMPUTES[module] or ()))
    ]
    assert strangers == []


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_a_pure_module_imports_only_pure_modules_of_its_own(path: Path) -> None:
    pure = {name_of(module) for module in PURE}
    assert own_imports(path) <= pure


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_a_pure_module_reads_no_clock_and_no_file(path: Path) -> None:
    calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    clocks = [f.attr for f in calls if isinstance(f, ast.Attribute) and f.attr in CLOCKS]
    effects = [f.id for f in calls if isinstance(f, ast.Name) and f.id in EFFECTS]
    assert clocks + effects == []


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_a_module_that_is_pure_says_so(path: Path) -> None:
    said = ast.get_docstring(tree(path)) or ""
    # Values and errors have nothing else to be.
    assert "Pure" in said or path.stem in ("model", "errors", "decimal_json", "compile")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_prints(path: Path) -> None:
    names = {node.id for node in ast.walk(tree(path)) if isinstance(node, ast.Name)}
    assert "print" not in names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_names_an_absolute_path(path: Path) -> None:
    texts = [
        node.value
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    absolute = re.compile(r"^(/(bin|etc|home|mnt|opt|root|tmp|usr|var|work)\b|[A-Z]:\\)")
    assert [text for text in texts if absolute.match(text)] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree(path))
