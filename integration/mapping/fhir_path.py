"""FHIRPath, compiled once for each expression. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import fhirpathpy
from antlr4 import CommonTokenStream, InputStream, Token
from antlr4.error.ErrorListener import ErrorListener
from fhirpathpy.models import models
from fhirpathpy.parser.generated.FHIRPathLexer import FHIRPathLexer
from fhirpathpy.parser.generated.FHIRPathParser import FHIRPathParser

FhirPath = Callable[[Mapping[str, Any], Mapping[str, Any]], list[Any]]


@cache
def compiled(path: str) -> FhirPath:
    """The expression, to be called with a resource and %variables. Raises ValueError.

    https://hl7.org/fhirpath/
    """
    _check(path)
    try:
        expression: FhirPath = fhirpathpy.compile(path, models["r4"])
    except Exception as error:  # the parser has no exception of its own
        raise ValueError(f"not FHIRPath: {error}") from None
    return expression


class _Strict(ErrorListener):  # type: ignore[misc]
    def syntaxError(self, _: Any, symbol: Any, line: int, column: int, msg: str, e: Any) -> None:
        raise ValueError(f"not FHIRPath: column {column + 1}: {msg}")


def _check(path: str) -> None:
    """fhirpathpy mends what it cannot parse, and would map something else, or nothing."""
    lexer = FHIRPathLexer(InputStream(path))
    parser = FHIRPathParser(CommonTokenStream(lexer))
    for each in (lexer, parser):
        each.removeErrorListeners()
        each.addErrorListener(_Strict())
    parser.expression()
    rest = parser.getCurrentToken()
    if rest.type != Token.EOF:
        raise ValueError(f"not FHIRPath: column {rest.column + 1}: nothing more was expected")
