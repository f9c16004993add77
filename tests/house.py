"""What the source says of itself: imports, names and calls, read with `ast` and counted.

tests/test_architecture.py holds the rules; the run prints the figures at its end.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "integration"
ALL_FOLDERS = ("integration", "local", "bench", "faults", "fuzz", "tests")

# The most arguments that a call may give by position.
MAX_POSITIONAL = 5

# Past participles that do not end in -ed. A function is named by what it does: `send`, not `sent`.
IRREGULAR = frozenset(
    """
    begun born bound bought brought built caught chosen cut done drawn dealt driven fallen fed felt
    filled forgotten found frozen given gone gotten grown heard held hidden kept known laid led left
    lent lost made meant met overridden overwritten paid proven read_back rewritten run_out said
    seen sent set_up shown shut sold sought spelt spent spoken spread stolen stood struck sworn
    taken taught thrown told torn understood undone unread unsaid woken won worn woven written
    """.split()
)
# Words that end in -ed or look irregular, and are verbs or adjectives in their own right.
NO_PARTICIPLE = frozenset({"need", "feed", "seed", "embed", "exceed", "proceed", "speed", "shed"})

# Words of an earlier private vocabulary and the standard ones; docs/glossary.md has the words in use.
BANNED = {
    "neighbour": "upstream, service",
    "outbox": "queue sender",
    "door": "endpoint, trigger",
    "put_back": "requeue",
    "claim_check": "work item",
    "ledger": "guard store",
    "trier": "attempted_by",
    "carry": "process, send",
    "carrier": "lane context",
    "scout": "preflight",
    "inquiry": "previous attempt",
    "misfits": "schema mismatches",
    "unshown": "unmapped",
    "backwards": "write back",
    "knots": "strongly connected components",
    "occasions": "synthetic deliveries",
    "first_use": "lazy parts",
    "gunzipped": "gzip",
    "exact_json": "decimal_json",
}
# Names that say nothing of what they hold.
VAGUE = frozenset({"it", "there", "one", "each", "told", "most", "still", "own"})


@cache
def sources(*folders: str) -> tuple[Path, ...]:
    """The Python files below these folders, but what Node has installed."""
    found = (path for folder in folders for path in (PROJECT / folder).rglob("*.py"))
    return tuple(sorted(path for path in found if "node_modules" not in path.parts))


def all_sources() -> tuple[Path, ...]:
    """Those of the app, of what runs it on a laptop, of its measurements and its tests."""
    return sources(*ALL_FOLDERS)


@cache
def modules() -> tuple[Path, ...]:
    """The modules of the app."""
    return tuple(path for path in sources("integration") if path.name != "__init__.py")


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), str(path))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a file's tree: several rules look at each, and the walk is what takes long."""
    return tuple(ast.walk(tree(path)))


def name_of(path: Path) -> str:
    """`fhir.plan` for integration/fhir/plan.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """(module, name) of every import, wherever in the file it stands."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
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


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_participle(name: str) -> bool:
    """Whether the first word of a function's name is a past participle."""
    word = name.strip("_").partition("_")[0]
    if word in NO_PARTICIPLE:
        return False
    return word in IRREGULAR or (len(word) > 3 and word.endswith("ed"))


@cache
def tracked_files() -> tuple[str, ...]:
    """Every file that git keeps; without git (a package, a copy) every file that is there."""
    done = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return tuple(done.stdout.splitlines())
    return tuple(str(path.relative_to(PROJECT)) for path in PROJECT.rglob("*") if path.is_file())


def named_by_participles() -> tuple[list[str], int]:
    """The functions of the app that are named so, and how many functions there are."""
    names = [
        f"{name_of(path)}.{node.name}"
        for path in modules()
        for node in functions(path)
        if not node.name.startswith("__")
    ]
    return [name for name in names if is_participle(name.rpartition(".")[2])], len(names)


@cache
def takers_of_many() -> frozenset[str]:
    """The functions that take any number of the same thing, and those whose order everybody knows."""
    own = (
        node.name
        for path in all_sources()
        for node in functions(path)
        if node.args.vararg is not None
    )
    return frozenset({*own, "datetime"})


def positional_calls() -> list[str]:
    """Calls with more arguments by position than a reader can tell apart."""
    return [
        f"{path.relative_to(PROJECT)}:{node.lineno}"
        for path in all_sources()
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and len(node.args) > MAX_POSITIONAL
        and _name_of_callee(node) not in takers_of_many()
    ]


def _name_of_callee(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def identifiers(path: Path) -> Iterator[tuple[str, int]]:
    """Names that a file defines or uses, and their lines."""
    for node in nodes(path):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                yield name, node.lineno


def _words(name: str) -> str:
    """`put_back` and `PutBack` alike."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")


@cache
def _is_banned(name: str) -> bool:
    return re.search(rf"(?:^|_)(?:{'|'.join(BANNED)})s?(?:_|$)", _words(name)) is not None


def banned_names() -> list[str]:
    """Where code still speaks the earlier vocabulary, or says nothing."""
    return sorted(
        {
            f"{path.relative_to(PROJECT)}:{line}: {name}"
            for path in all_sources()
            for name, line in identifiers(path)
            if (name in VAGUE and not _is_test(path)) or _is_banned(name)
        }
    )


def private_imports() -> list[str]:
    """Where a module uses a name that another module keeps to itself."""
    found = []
    for path in all_sources():
        imported: set[str] = set()
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom):
                imported.update(alias.asname or alias.name for alias in node.names)
                private = [alias.name for alias in node.names if _is_private(alias.name)]
                found += [f"{path.relative_to(PROJECT)}:{node.lineno}: {name}" for name in private]
        found += [
            f"{path.relative_to(PROJECT)}:{node.lineno}: {node.value.id}.{node.attr}"
            for node in nodes(path)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in imported
            and _is_private(node.attr)
        ]
    return found


def _is_test(path: Path) -> bool:
    return path.is_relative_to(PROJECT / "tests")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
