"""Who may import whom, what only computes, and how names and calls are made: one case a rule.

A failing case lists every place that breaks its rule. The figures are printed at the end of a run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import integration
from tests import house
from tests.house import PROJECT, imports, modules, name_of, own_imports, tree

# A module imports only from bands below its own. Within a band folders do not know each other, but
# for the commands, where the upper ones start the lower ones. CONTRIBUTING.md shows the same lines.
BANDS = """
__main__
cli
check
provision
app
pages
reconcile
intake | relay | mirror | virtual_tables | change_events | operations
edits
queues
fhir | mapping | dataverse | odata | journal | senders
core
"""

# Folders that only compute, but for these modules, which send, or read and write files.
PURE_FOLDERS = ("fhir", "mapping", "dataverse", "odata", "provision", "senders")
NOT_PURE = {
    "fhir.client",
    "dataverse.client",
    "mapping.files",
    "mapping.load",
    "mapping.toolkit.client",
    "mapping.toolkit.load",
    "provision.client",
    "provision.command",
    "provision.load",
    "senders.jwks",
    "senders.load",
}
# Modules that only compute, in folders that do more.
PURE_MODULES = {
    "cli.captured_request",
    "check.remedies",
    "check.report",
    "check.results",
    "core.decimal_json",
    "core.json_names",
    "core.errors",
    "core.flow",
    "core.model",
    "core.state_version",
    "journal.audit_entry",
    "journal.bounds",
    "journal.concern",
    "journal.table_keys",
    "operations.audit_events",
    "operations.views",
    "pages.activity_groups",
    "pages.sender_facts",
    "queues.names",
    "virtual_tables.date_window",
    "virtual_tables.entity_type",
    "virtual_tables.feed_documents",
    "virtual_tables.feed_rows",
    "virtual_tables.feed_values",
    "virtual_tables.odata_request",
    "virtual_tables.pushdown",
    "virtual_tables.query_plan",
    "core.write_order",
}

# Everything that a pure module may import from outside; names where only those will do.
PURE_IMPORTS: dict[str, frozenset[str] | None] = {
    "__future__": None,
    "binascii": None,
    "bisect": None,
    "collections": None,
    "collections.abc": None,
    "cryptography.exceptions": frozenset(
        {"InvalidSignature", "InvalidTag", "UnsupportedAlgorithm"}
    ),
    "cryptography.hazmat.primitives.asymmetric": frozenset({"ec", "ed25519", "rsa"}),
    "cryptography.hazmat.primitives.asymmetric.ed25519": frozenset({"Ed25519PublicKey"}),
    "cryptography.hazmat.primitives.serialization": frozenset({"load_pem_public_key"}),
    "cryptography.hazmat.primitives.ciphers.aead": frozenset({"AESSIV"}),
    "cryptography.x509": frozenset({"load_der_x509_certificate"}),
    "dataclasses": None,
    "datetime": None,
    "decimal": None,
    "email.message": None,
    "email.parser": frozenset({"BytesParser"}),
    "email.policy": None,
    "email.utils": frozenset({"parsedate_to_datetime"}),
    "enum": None,
    "fhir.resources.R4B": None,
    "functools": None,
    "hashlib": None,
    "hmac": None,
    # The verifier has its clock handed in: see senders/proofs/rfc9421.py.
    "http_message_signatures": None,
    "http_message_signatures.algorithms": None,
    "itertools": None,
    "json": frozenset({"loads"}),
    # Signatures alone: its claims are checked by its own clock, ours by the one that is given.
    "jwt": None,
    "jwt.algorithms": None,
    "msgspec": None,
    "pydantic": None,
    "re": None,
    "shlex": None,
    "typing": None,
    "urllib.parse": None,
    "uuid": frozenset({"UUID", "uuid5", "NAMESPACE_URL", "NAMESPACE_OID"}),
    "xml.etree.ElementTree": None,
}
PURE_LIBRARIES = {"antlr4", "fhirpathpy", "integration"}

CLOCKS = {"now", "utcnow", "today", "fromtimestamp", "perf_counter", "monotonic"}
EFFECTS = {"print", "open", "input", "eval", "exec", "compile", "__import__", "breakpoint"}

# A package, and the only modules that may know it; a folder stands for all of its modules.
KNOWN_BY = [
    (
        "azure.functions",
        {
            *("app.responses", "app.error_handlers", "app.page_requests"),
            *("app.sender_requests", "app.data_route_requests"),
        },
    ),
    ("azure.identity", {"app.http_clients"}),
    ("azure.monitor", {"app.telemetry"}),
    ("azure.core", {"journal.azure_*", "app.storage_clients"}),
    ("azure.data", {"journal.azure_*", "app.storage_clients"}),
    ("azure.storage", {"journal.azure_*", "app.storage_clients"}),
    ("fhirpathpy", {"mapping.fhirpath.*"}),
    ("antlr4", {"mapping.fhirpath.*"}),
    ("httpx", {"core.http", "app.http_clients"}),
    ("jinja2", {"pages.view"}),
    ("jwt", {"senders.proofs.json_web_token"}),
    ("http_message_signatures", {"senders.proofs.rfc9421"}),
    ("cryptography", {"senders.proofs.*", "virtual_tables.skip_token"}),
    # The one reads the environment, the other fills it for --local.
    ("os", {"app.settings", "cli.local_settings"}),
]


def bands() -> dict[str, int]:
    """The number of each folder's band, the highest 0."""
    lines = BANDS.split("\n")[1:-1]
    return {folder: number for number, line in enumerate(lines) for folder in line.split(" | ")}


def folder_of(module: str) -> str:
    """`fhir` for fhir.plan."""
    return module.partition(".")[0]


def pure_modules() -> list[Path]:
    """The modules that only compute."""
    return [
        path
        for path in modules()
        if (folder_of(name_of(path)) in PURE_FOLDERS and name_of(path) not in NOT_PURE)
        or name_of(path) in PURE_MODULES
    ]


def is_one_of(module: str, patterns: set[str]) -> bool:
    """Whether a module is named, or stands in a folder or begins like what is named."""
    return any(
        module == pattern or (pattern.endswith("*") and module.startswith(pattern[:-1]))
        for pattern in patterns
    )


def test_every_folder_has_its_band() -> None:
    assert {folder_of(name_of(path)) for path in modules()} == set(bands())


def test_a_module_imports_only_from_bands_below_its_own() -> None:
    upward = [
        f"{name_of(path)} -> {other}"
        for path in modules()
        for other in sorted(own_imports(path))
        if (own := folder_of(name_of(path))) != folder_of(other)
        and bands()[folder_of(other)] <= bands()[own]
    ]
    assert upward == []


@pytest.mark.parametrize(
    "text",
    [integration.__doc__ or "", (PROJECT / "CONTRIBUTING.md").read_text("utf-8")],
    ids=["integration/__init__.py", "CONTRIBUTING.md"],
)
def test_the_docs_show_the_same_bands(text: str) -> None:
    flat = "\n".join(line.strip() for line in text.splitlines())
    assert BANDS.strip() in flat


def test_a_package_is_known_only_where_it_belongs() -> None:
    strangers = [
        f"{name_of(path)} knows {package}"
        for package, allowed in KNOWN_BY
        for path in modules()
        if any(f"{module}.".startswith(f"{package}.") for module, _ in imports(path))
        and not is_one_of(name_of(path), allowed)
    ]
    assert strangers == []


def test_of_the_azure_packages_the_endpoints_know_only_functions() -> None:
    known = {module for module, _ in imports(PROJECT / "function_app.py")}
    assert {module for module in known if module.startswith("azure")} == {"azure.functions"}


def test_the_app_knows_nothing_of_tests_benchmarks_and_the_laptop() -> None:
    outside = {"local", "tests", "bench", "faults", "fuzz", "function_app"}
    found = [
        f"{name_of(path)} -> {module}"
        for path in modules()
        for module, _ in imports(path)
        if module.partition(".")[0] in outside
    ]
    assert found == []


def test_a_pure_module_imports_only_what_computes() -> None:
    strangers = [
        f"{name_of(path)} -> {module}.{name}"
        for path in pure_modules()
        for module, name in imports(path)
        if module.partition(".")[0] not in PURE_LIBRARIES
        and (
            module not in PURE_IMPORTS
            or (PURE_IMPORTS[module] is not None and name not in (PURE_IMPORTS[module] or ()))
        )
    ]
    assert strangers == []


def test_a_pure_module_imports_only_pure_modules_of_its_own() -> None:
    pure = {name_of(path) for path in pure_modules()}
    impure = [
        f"{name_of(path)} -> {other}"
        for path in pure_modules()
        for other in sorted(own_imports(path) - pure)
    ]
    assert impure == []


def test_a_pure_module_reads_no_clock_and_no_file() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in pure_modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS)
            or (isinstance(node.func, ast.Name) and node.func.id in EFFECTS)
        )
    ]
    assert found == []


def test_a_module_that_is_pure_says_so() -> None:
    silent = [
        name_of(path)
        for path in pure_modules()
        if "Pure" not in (ast.get_docstring(tree(path)) or "")
        # Values, names and errors have nothing else to be.
        and path.stem not in ("model", "errors", "names", "decimal_json", "compile")
    ]
    assert silent == []


def test_no_module_prints() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Name) and node.id == "print"
    ]
    assert found == []


def test_no_module_names_an_absolute_path() -> None:
    absolute = re.compile(r"^(/(bin|etc|home|mnt|opt|root|tmp|usr|var|work)\b|[A-Z]:\\)")
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and absolute.match(node.value)
    ]
    assert found == []


def test_every_module_says_what_it_is_for() -> None:
    assert [name_of(path) for path in modules() if not ast.get_docstring(tree(path))] == []


def test_no_verb_reads_settings() -> None:
    """Queue names and the like come with the parts, or from integration/queues/names.py."""
    above = {"__main__", "cli", "check", "provision", "app"}
    found = [
        name_of(path)
        for path in modules()
        if folder_of(name_of(path)) not in above and "app.settings" in own_imports(path)
    ]
    assert found == []


Tell = Callable[[str, object], None]


def test_no_call_gives_more_positional_arguments_than_a_reader_can_tell_apart(
    record_property: Tell,
) -> None:
    calls = house.positional_calls()
    record_property(f"calls with more than {house.MAX_POSITIONAL} positional arguments", len(calls))
    assert calls == []


def test_functions_are_named_by_verbs(record_property: Tell) -> None:
    """A handful of exceptions is no private dialect: fewer than three in a hundred."""
    participles, count = house.named_by_participles()
    share = 100 * len(participles) / count
    found = f"{len(participles)} of {count} ({share:.1f} %)"
    record_property("functions named by participles", found)
    assert share < 3, participles


def test_no_name_is_of_the_earlier_vocabulary(record_property: Tell) -> None:
    names = house.banned_names()
    record_property("banned names", len(names))
    assert names == []


def test_no_module_uses_a_private_name_of_another(record_property: Tell) -> None:
    names = house.private_imports()
    record_property("private names used by other modules", len(names))
    assert names == []


def test_nothing_is_left_over_in_the_tree() -> None:
    """What editors and merges leave behind would be deployed with the app."""
    left = re.compile(r"(\.orig|\.rej|\.bak|\.swp|\.tmp|~)$|(^|/)(\.DS_Store|Thumbs\.db)$")
    assert [name for name in house.tracked_files() if left.search(name)] == []


def test_every_file_of_the_package_is_one_that_the_app_imports_or_reads() -> None:
    read = {
        ".toml": ("mapping/maps/", "provision/role.toml"),
        ".json": ("provision/custom/",),
        ".html": ("pages/templates/",),
        **dict.fromkeys((".css", ".js", ".svg"), ("pages/static/",)),
    }
    package = PROJECT / "integration"
    strangers = [
        name
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".py"
        for name in [path.relative_to(package).as_posix()]
        if not name.startswith(read.get(path.suffix, ("never",)))
    ]
    assert strangers == []
