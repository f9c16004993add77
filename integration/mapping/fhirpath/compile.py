"""FHIRPath, compiled once for each expression. Pure.

https://hl7.org/fhirpath/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from antlr4 import CommonTokenStream, InputStream, ParseTreeWalker, Token
from antlr4.error.ErrorListener import ErrorListener
from fhirpathpy import apply_parsed_path
from fhirpathpy.engine.invocations import invocation_registry
from fhirpathpy.engine.nodes import FP_Type, ResourceNode
from fhirpathpy.engine.util import set_paths
from fhirpathpy.models import models
from fhirpathpy.parser.ASTPathListener import ASTPathListener
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

# A clock would map the same resource differently; a trace prints what it sees.
_REFUSED = frozenset({"now", "today", "timeOfDay", "trace"})

# Empty in, empty out: https://hl7.org/fhirpath/#functions
_STRICT = frozenset(
    "where select first last tail skip take exclude ofType as distinct extension lower upper trim "
    "substring replace replaceMatches split join toString toInteger toDecimal matches".split()
)
_STRICT_OPERATORS = frozenset({"EqualityExpression", "InequalityExpression"})

Tree = dict[str, Any]
Node = Any  # fhirpathpy's: a value, or a ResourceNode that knows the type of its value


@dataclass(frozen=True, slots=True)
class FhirPath:
    """An expression, and what can be told of it without evaluating it."""

    text: str
    variables: frozenset[str]  # without %
    elements: frozenset[str]  # every element that it names
    # Where none of these elements or %variables is there, the result is empty; None: not known.
    needs: frozenset[str] | None
    tree: Tree = field(compare=False, repr=False)
    _evaluate: Any = field(compare=False, repr=False)

    def nodes(self, focus: Node, variables: Mapping[str, Any]) -> list[Node]:
        """What it finds, with types: a node can be a variable, or the focus of another path.
        Raises whatever Python raises, in words that may quote a value."""
        found = self._evaluate(focus, variables)
        return found if isinstance(found, list) else [found]

    def __call__(self, focus: Node, variables: Mapping[str, Any]) -> list[Any]:
        return [plain(node) for node in self.nodes(focus, variables)]


def plain(node: Node) -> Any:
    """The value of a node, as JSON has it."""
    value = node.data if isinstance(node, ResourceNode) else node
    return str(value) if isinstance(value, FP_Type) else value


@cache
def compile_path(path: str) -> FhirPath:
    """The expression, to be called with a resource and %variables. Raises ValueError."""
    parsed = _parsed(path)
    tree = parsed["children"][0]
    for name in _functions(tree):
        if name in _REFUSED or name not in invocation_registry:
            raise ValueError(f"not FHIRPath that a map may use: {name}()")
    evaluate = set_paths(  # type: ignore[no-untyped-call]
        apply_parsed_path, parsed, models["r4"], {"returnRawData": True}
    )
    needs = _needs(tree)
    members = [node for node in _walk(tree) if node["type"] == "MemberInvocation"]
    return FhirPath(
        path,
        frozenset(_name(node) for node in _walk(tree) if node["type"] == "ExternalConstant"),
        frozenset(map(_name, members)),
        needs,
        tree,
        evaluate,
    )


class _Strict(ErrorListener):  # type: ignore[misc]
    def syntaxError(self, _: Any, symbol: Any, line: int, column: int, msg: str, e: Any) -> None:
        raise ValueError(f"not FHIRPath: column {column + 1}: {msg}")


def _parsed(path: str) -> Tree:
    """As fhirpathpy parses, but for what it mends: it would map something else, or nothing."""
    lexer = FHIRPathLexer(InputStream(path))
    parser = FHIRPathParser(CommonTokenStream(lexer))
    for each in (lexer, parser):
        each.removeErrorListeners()
        each.addErrorListener(_Strict())
    listener = ASTPathListener()  # type: ignore[no-untyped-call]
    ParseTreeWalker().walk(listener, parser.expression())
    rest = parser.getCurrentToken()
    if rest.type != Token.EOF:
        raise ValueError(f"not FHIRPath: column {rest.column + 1}: nothing more was expected")
    tree: Tree = listener.parentStack[0]
    return tree


def _walk(tree: Tree) -> Iterator[Tree]:
    yield tree
    for child in tree.get("children", ()):
        yield from _walk(child)


def _name(tree: Tree) -> str:
    text: str = tree["children"][0]["text"]
    return text.strip("`'\"")


def _functions(tree: Tree) -> Iterator[str]:
    return (_name(node) for node in _walk(tree) if node["type"] == "Functn")


def _needs(tree: Tree) -> frozenset[str] | None:
    """The elements and %variables without all of which the result is empty."""
    children: list[Tree] = tree.get("children", [])
    match tree["type"]:
        case "TermExpression" | "InvocationTerm" | "ParenthesizedTerm":
            return _needs(children[0])
        case "MemberInvocation":
            name = _name(tree)
            return frozenset({name}) if name[:1].islower() else None
        case "ExternalConstantTerm":
            return frozenset({f"%{_name(children[0])}"})
        case "LiteralTerm" if children[0]["type"] == "NullLiteral":
            return frozenset()
        case "IndexerExpression":
            return _needs(children[0])
        case "InvocationExpression":
            first, last = children
            strict = last["type"] == "MemberInvocation" or next(_functions(last), "") in _STRICT
            return _needs(first) if strict else None
        case "UnionExpression":
            return _either(children)
        case "FunctionInvocation" if _name(children[0]) == "iif":
            return _either(children[0]["children"][1]["children"][1:])
        case kind if kind in _STRICT_OPERATORS and tree["terminalNodeText"][0] not in ("~", "!~"):
            return _needs(children[0])
    return None


def _either(trees: list[Tree]) -> frozenset[str] | None:
    needs = [_needs(tree) for tree in trees]
    known = [each for each in needs if each is not None]
    return frozenset().union(*known) if len(known) == len(needs) else None
