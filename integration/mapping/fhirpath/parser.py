"""FHIRPath text as fhirpathpy's syntax tree. Pure.

https://hl7.org/fhirpath/#formal-specifications
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from antlr4 import CommonTokenStream, InputStream, ParseTreeWalker, Token
from antlr4.error.ErrorListener import ErrorListener
from fhirpathpy.engine.evaluators import string_literal
from fhirpathpy.parser.ASTPathListener import ASTPathListener
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

from integration.mapping.fhirpath.quick_parser import UnknownText, parse_quickly

# Trees that are kept: those of all maps, which are read in several places.
_MAX_TREES = 4096

# A node of the tree: `type` is the name of its grammar rule; `children`, `text` and
# `terminalNodeText` are there where the rule has them.
Tree = Mapping[str, Any]


class _StrictErrorListener(ErrorListener):  # type: ignore[misc]
    def syntaxError(self, _: Any, symbol: Any, line: int, column: int, msg: str, e: Any) -> None:
        raise ValueError(f"not valid FHIRPath at column {column + 1}: {msg}")


@lru_cache(maxsize=_MAX_TREES)
def parse_path(path: str) -> Tree:
    """Return the tree of a path's expression. Raises ValueError, which says at which column."""
    try:
        return parse_quickly(path)
    except UnknownText:
        return parse_completely(path)


def parse_completely(path: str) -> Tree:
    """Return the same with fhirpathpy's parser. Its own function repairs what it cannot parse: the
    path would then find something else, or nothing."""
    lexer = FHIRPathLexer(InputStream(path))
    parser = FHIRPathParser(CommonTokenStream(lexer))
    for recognizer in (lexer, parser):
        recognizer.removeErrorListeners()
        recognizer.addErrorListener(_StrictErrorListener())
    listener = ASTPathListener()  # type: ignore[no-untyped-call]
    ParseTreeWalker().walk(listener, parser.expression())
    rest = parser.getCurrentToken()
    if rest.type != Token.EOF:
        raise ValueError(
            f"not valid FHIRPath at column {rest.column + 1}: the path should end here"
        )
    tree: Tree = listener.parentStack[0]["children"][0]
    return tree


def walk_tree(tree: Tree) -> Iterator[Tree]:
    """Yield the node and all nodes below it."""
    yield tree
    for child in tree.get("children", ()):
        yield from walk_tree(child)


def format_tree(tree: Tree) -> str:
    """Return what tells an expression from others; equal expressions have equal texts."""
    said = (tree["type"], tree.get("text", ""), *tree.get("terminalNodeText", ()))
    return f"{said}[{','.join(map(format_tree, tree.get('children', ())))}]"


def get_name(tree: Tree) -> str:
    """Return the name of an element, a function or a variable (without %)."""
    text: str = tree["children"][0]["text"]
    return text.strip("`'\"")


def list_functions(tree: Tree) -> Iterator[str]:
    """Yield the name of every function that is called."""
    return (get_name(node) for node in walk_tree(tree) if node["type"] == "Functn")


def get_arguments(function: Tree) -> list[Tree]:
    """Return the arguments of a `Functn` node."""
    children = function["children"]
    arguments: list[Tree] = children[1]["children"] if len(children) > 1 else []
    return arguments


def get_literal(tree: Tree) -> Tree | None:
    """Return the literal that an expression consists of; None where it is anything else."""
    if tree["type"] != "TermExpression" or tree["children"][0]["type"] != "LiteralTerm":
        return None
    literal: Tree = tree["children"][0]["children"][0]
    return literal


def parse_literal(literal: Tree) -> list[Any]:
    """Return the value of a boolean, text or number, or no value for `{}`. Raises ValueError for
    dates, times and quantities."""
    match literal["type"]:
        case "NullLiteral":
            return []
        case "BooleanLiteral":
            return [literal["text"] == "true"]
        case "StringLiteral":
            text: list[Any] = string_literal(None, None, literal)  # type: ignore[no-untyped-call]
            return text
        case "NumberLiteral":
            number = Decimal(literal["text"])
            return [int(number) if number == int(number) else number]
    raise ValueError(f"a {literal['type']} is not supported")
