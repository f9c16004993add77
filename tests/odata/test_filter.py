"""$filter: what is understood, what is refused, and with which words."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odata_query import ast
from odata_query.grammar import ODataLexer, ODataParser

from integration.core.errors import Rejected
from integration.odata.evaluate import build_test
from integration.odata.expressions import (
    And,
    Compare,
    Constant,
    Field,
    In,
    Is,
    Match,
    Not,
    Or,
    Truth,
)
from integration.odata.filter import MAX_NESTING, parse
from tests.odata.sets import (
    KEY,
    MARKER,
    OBSERVATIONS,
    OTHER,
    ROW,
    ROWS,
    VALUES,
    Case,
    filters,
    refusal,
)

PROPERTY = OBSERVATIONS.by_name


def said(text: str) -> Any:
    return parse(text, OBSERVATIONS)


def refused(text: str) -> tuple[int, str, str | None]:
    rejected = refusal(lambda: said(text))
    return rejected.status, rejected.issues[0].text, rejected.issues[0].expression


def equals(name: str, value: Any) -> Compare:
    return Compare("eq", Field(PROPERTY[name]), Constant(value))


@given(filters(), ROWS)
def test_a_filter_means_what_the_same_condition_means_in_python(
    case: Case, row: dict[str, Any]
) -> None:
    text, meaning = case
    assert build_test(said(text))(row) is (meaning(row) is True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("status eq 1", 1),
        ("status eq -1", -1),
        ("status eq +1", 1),
        ("status eq null", None),
        ("big eq 9007199254740993", 9_007_199_254_740_993),
        ("value eq 1.10", Decimal("1.10")),
        ("value eq -0.000000000000000000001", Decimal("-0.000000000000000000001")),
        ("value eq 1e3", Decimal("1e3")),
        ("final eq true", True),
        ("final eq FALSE", False),
        ("description eq 'O''Brien'", "O'Brien"),
        ("description eq ''", ""),
        ("description eq ''''", "'"),
        ("description eq ' and (1 eq 2)'", " and (1 eq 2)"),
        ("description eq 'Müller 李 🎈'", "Müller 李 🎈"),
        ("description eq 'a\nb\x00'", "a\nb\x00"),
        (f"_patient_value eq {KEY}", KEY),
        (f"_patient_value eq {str(OTHER).upper()}", OTHER),
        ("issued eq 2024-02-29T12:00:00Z", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("issued eq 2024-02-29T12:00Z", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        (
            "issued eq 2024-02-29T12:00:00.5+02:00",
            datetime.fromisoformat("2024-02-29T10:00:00.500000+00:00"),
        ),
        ("issued eq 0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        (
            "issued eq 9999-12-31T23:59:59.9999999Z",
            datetime.fromisoformat("9999-12-31T23:59:59.999999+00:00"),
        ),
        ("issued eq 2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
        ("allergy eq 'nuts'", "nuts"),
        ("  status\teq   1 ", 1),
        ("((status eq (1)))", 1),
        ("status EQ 1", 1),
    ],
)
def test_every_literal_keeps_its_value(text: str, value: Any) -> None:
    name = text.strip("( ").split()[0]
    found = said(text)
    assert found == equals(name, value)
    assert type(found.right.value) is type(value)


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("1 eq status", "status eq 1"),
        ("1 ne status", "status ne 1"),
        ("1 lt status", "status gt 1"),
        ("1 le status", "status ge 1"),
        ("1 gt status", "status lt 1"),
        ("1 ge status", "status le 1"),
    ],
)
def test_a_constant_on_the_left_is_turned_to_the_right(text: str, turned: str) -> None:
    assert said(text) == said(turned)


def test_operators_bind_as_odata_says() -> None:
    entry, two, three = equals("status", 1), equals("status", 2), equals("status", 3)
    assert said("status eq 1 or status eq 2 and status eq 3") == Or((entry, And((two, three))))
    assert said("(status eq 1 or status eq 2) and status eq 3") == And((Or((entry, two)), three))
    assert said("not final eq true") == Is(Not(Truth(Field(PROPERTY["final"]))), True)
    assert said("not status in (1)") == Not(In(Field(PROPERTY["status"]), (1,)))
    assert said("status lt 1 eq true") == Is(
        Compare("lt", Field(PROPERTY["status"]), Constant(1)), True
    )


def test_chains_become_flat() -> None:
    parts = tuple(equals("status", number) for number in range(4))
    text = "status eq 0 and (status eq 1 and status eq 2) and status eq 3"
    assert said(text) == And(parts)
    assert said(text.replace("and", "or")) == Or(parts)


def test_not_needs_no_space_before_a_parenthesis() -> None:
    assert said("not(status eq 1)") == said("not (status eq 1)") == Not(equals("status", 1))


def test_a_list_may_have_one_member_or_none() -> None:
    assert said("code in ('x')") == In(Field(PROPERTY["code"]), ("x",))
    assert said("code in ('x', null ,'y')") == In(Field(PROPERTY["code"]), ("x", None, "y"))
    assert said("code in ()") == In(Field(PROPERTY["code"]), ())


def test_a_function_compared_with_true_or_false_is_understood() -> None:
    found = Match("contains", Field(PROPERTY["code"]), Constant("x"))
    assert (
        said("contains(code,'x') eq true") == said("true eq contains(code,'x')") == Is(found, True)
    )
    assert said("contains(code,'x') ne false") == Not(Is(found, False))


def test_case_functions_wrap_a_property_and_change_a_literal() -> None:
    code = Field(PROPERTY["code"], "lower")
    assert said("contains(tolower(code), 'x')") == Match("contains", code, Constant("x"))
    assert said("tolower(code) eq toupper('x')") == Compare("eq", code, Constant("X"))


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("weight eq 1", "weight", "msemr_observations has no property weight"),
        ("Status eq 1", "Status", "no property Status"),
        ("contains(weight,'x')", "weight", "no property weight"),
        ("status eq 'x'", "status", "position 8: status is Edm.Int32, not comparable with a text"),
        ("'x' eq status", "status", "status is Edm.Int32, not comparable with a text"),
        ("description eq 1", "description", "description is Edm.String"),
        ("status in (1,'x')", "status", "position 14: status is Edm.Int32"),
        (f"_patient_value eq '{KEY}'", "_patient_value", "Edm.Guid, not comparable with a text"),
        (f"description eq {KEY}", "description", "not comparable with a GUID"),
        ("issued eq '2024-02-29T12:00:00Z'", "issued", "Edm.DateTimeOffset"),
        ("final eq 1", "final", "final is Edm.Boolean"),
        ("status eq description", "status", "not comparable with a text"),
        ("1 eq 'x'", "$filter", "a number is not comparable with a text"),
        ("contains(status,'x')", "$filter", "position 1: contains takes 2 of Edm.String"),
        ("contains(code)", "$filter", "contains takes 2"),
        ("tolower()", "$filter", "tolower takes 1"),
        ("status", "$filter", "expected a condition"),
        ("status eq 1 and 'x'", "$filter", "position 13: expected a condition"),
        ("not status eq 1", "$filter", "put what not negates in parentheses"),
        ("(status eq 1) eq 1", "$filter", "compared with true, false or null"),
        ("", "$filter", "position 1: expected a property, a value or a function"),
        ("   ", "$filter", "position 4: expected"),
        ("status eq", "$filter", "position 10: expected"),
        ("status eq 1 status", "$filter", "position 13: expected an operator"),
        ("status eq 1)", "$filter", "position 12: expected the end"),
        ("(status eq 1", "$filter", "position 13: expected )"),
        ("status in 1", "$filter", "position 11: expected ("),
        ("status in (1", "$filter", "position 13: expected ,"),
        ("status in (1,)", "$filter", "position 14: expected"),
        ("status in (big)", "$filter", "in takes a list of values"),
        ("(status eq 1) in (true)", "$filter", "in takes a property on its left"),
        ("description eq 'x", "$filter", "position 16: text that is not part"),
        ("status eq 1;", "$filter", "position 12: text that is not part"),
        ("status eq 1x", "$filter", "position 11: text that is not part"),
        ("status eq 1.", "$filter", "position 11: text that is not part"),
        ("status == 1", "$filter", "position 8: text that is not part"),
        ("code eq guid'x'", "$filter", "position 9: text that is not part"),
        ("issued gt duration'P1D'", "$filter", "position 11: text that is not part"),
        ("issued eq 2024-02-30", "$filter", "the date does not exist"),
        ("issued eq 2024-02-29T25:00:00Z", "$filter", "the datetime does not exist"),
        ("issued eq 0001-01-01T00:00:00+02:00", "$filter", "the datetime does not exist"),
        ("issued eq 2024-02-29T12:00:00", "$filter", "text that is not part"),
        ("value eq 1e99999999999999999999", "$filter", "the number does not exist"),
        ("substringof('x',code)", "$filter", "OData has no such function"),
    ],
)
def test_what_is_wrong_is_a_400_that_says_what_and_where(
    text: str, target: str, words: str
) -> None:
    status, message, expression = refused(text)
    assert (status, expression) == (400, target)
    assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("year(issued) eq 2024", "position 1: no function year"),
        ("length(code) gt 3", "no function length"),
        ("geo.distance(code,code) lt 1", "no function geo.distance"),
        ("issued lt now()", "position 11: no function now"),
        ("status add 1 eq 2", "position 8: no add"),
        ("code has 'x'", "no has"),
        ("patient/name eq 'x'", "paths are not followed"),
        ("items/any(d:d eq 1)", "paths are not followed"),
        ("$it eq 1", "no $ names"),
        ("code eq @p", "no @ names"),
        ("contains(code,'x') lt true", "a comparison of conditions"),
        ("(status eq 1) eq (status eq 2)", "a comparison of conditions"),
    ],
)
def test_what_odata_knows_and_the_feed_does_not_offer_is_a_501(text: str, words: str) -> None:
    status, message, expression = refused(text)
    assert (status, expression) == (501, "$filter")
    assert words in message


def test_no_value_is_ever_repeated() -> None:
    for text in (f"status eq '{MARKER}'", f"'{MARKER}' eq 1", f"code eq '{MARKER}", f"'{MARKER}'"):
        assert refused(text)[0] == 400
    assert refused(f"description eq 'x' '{MARKER}'")[0] == 400


def test_no_name_that_could_be_none_is_repeated() -> None:
    name = "x" * 129
    assert name not in refused(f"{name} eq 1")[1]
    assert refused("a.b eq 1")[1] == "something that is no property name of msemr_observations"


def nestings(depth: int) -> list[str]:
    return [
        "(" * depth + "status eq 1" + ")" * depth,
        "not " * depth + "final",
        "not(" * (depth // 2) + "final" + ")" * (depth // 2),
        "tolower(" * depth + "code" + ")" * depth + " eq 'x'",
        "final" + " eq true" * depth,
        "final" + " ne true" * depth,
        "status eq 1 or final and (not (" * (depth // 4) + "final" + ") ne null)" * (depth // 4),
    ]


@pytest.mark.parametrize("text", nestings(MAX_NESTING))
def test_deep_nesting_within_the_bound_is_parsed_and_evaluated(text: str) -> None:
    assert build_test(said(text))(ROW) in (True, False)


@pytest.mark.parametrize("text", nestings(MAX_NESTING + 4) + nestings(3_000))
def test_deeper_nesting_is_refused_before_it_costs_anything(text: str) -> None:
    status, message, _ = refused(text)
    assert status == 400
    assert f"nested more than {MAX_NESTING} levels deep" in message


def test_a_long_chain_is_no_deep_one() -> None:
    text = " or ".join(f"status eq {number}" for number in range(1_000))
    assert not build_test(said(text))(ROW)
    assert build_test(said(f"{text} or status eq {ROW['status']}"))(ROW)


WORDS = """
    and or not eq ne lt in ( ) , ' '' null true 1 -1 1.5 'x' contains( tolower( 2024-02-29
    2024-02-29T00:00:00Z / $it @p é 11111111-2222-3333-4444-555555555555
""".split()
SPOKEN = st.lists(st.sampled_from([*PROPERTY, *WORDS, "\x00"]), max_size=12).map(" ".join)


def outcome(text: str) -> int:
    try:
        return 200 if build_test(said(text))(ROW) in (True, False) else 0
    except Rejected as rejected:
        return rejected.status


@given(st.text(max_size=60) | SPOKEN)
def test_any_text_is_either_a_condition_or_refused(text: str) -> None:
    assert outcome(text) in (200, 400, 501)


# -- against another parser ----------------------------------------------------------------------

OPERATORS = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge",
}  # fmt: skip


def theirs(node: Any) -> Any:
    """What odata-query understood, in our words."""
    match node:
        case ast.Identifier(name):
            return Field(PROPERTY[name])
        case ast.Float(text):
            return Constant(Decimal(text))
        case ast.Call(ast.Identifier("tolower"), [ast.Identifier(name)]):
            return Field(PROPERTY[name], "lower")
        case ast.Call(ast.Identifier(function), [text, part]):
            return Match(function, theirs(text), theirs(part))  # type: ignore[arg-type]
        case ast.UnaryOp(ast.Not(), part):
            return Not(condition(part))
        case ast.BoolOp(operator, left, right):
            chain = And if isinstance(operator, ast.And) else Or
            sides = (condition(left), condition(right))
            flat = (side.parts if isinstance(side, chain) else (side,) for side in sides)
            return chain(tuple(part for parts in flat for part in parts))
        case ast.Compare(ast.In(), operand, members):
            return In(theirs(operand), tuple(theirs(member).value for member in members.val))
        case ast.Compare(operator, left, right):
            return compared(OPERATORS[type(operator)], theirs(left), theirs(right))
        case _:
            return Constant(node.py_val)


def compared(operator: Any, left: Any, right: Any) -> Any:
    if not isinstance(left, Field | Constant):
        assert operator == "eq"
        return Is(left, right.value)
    if isinstance(left, Constant):
        turned = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
        return Compare(turned.get(operator, operator), right, left)
    return Compare(operator, left, right)


def condition(node: Any) -> Any:
    found = theirs(node)
    return Truth(found) if isinstance(found, Field | Constant) else found


# Lists of none and of one, and names that begin with a keyword, are beyond odata-query.
UNDERSTOOD = filters([name for name in VALUES if not name.startswith("all")], fewest=2)


@given(UNDERSTOOD)
def test_what_another_parser_understands_means_the_same_here(case: Case) -> None:
    tree = ODataParser().parse(ODataLexer().tokenize(case[0]))
    assert said(case[0]) == condition(tree)


def test_uuids_come_as_uuids() -> None:
    assert isinstance(said(f"_patient_value eq {KEY}").right.value, UUID)
