"""docs/operations.md: each alert of the deployment has its line, and the costs are what their
arithmetic says."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping

import pytest

from local.processes import PROJECT

PAGE = (PROJECT / "docs/operations.md").read_text("utf-8")
MODULES = PROJECT / "infra/modules"

# What the page itself adds to the arithmetic.
OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def section(name: str) -> str:
    return PAGE.partition(f"## {name}\n")[2].partition("\n## ")[0]


def alerts() -> set[str]:
    """The words that alerts are named by."""
    texts = [path.read_text("utf-8") for path in MODULES.glob("*.bicep")]
    rules = re.findall(r"    name: '(\w+)'\n    tells:", "".join(texts))
    metrics = re.findall(r"metricAlerts@[^{]*\{\n  name: '\$\{name\}-(\w+)'", "".join(texts))
    budgets = ["budget"] if (MODULES / "budget.bicep").is_file() else []
    return {*rules, *metrics, *budgets}


def cells(text: str, columns: int) -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if len(row) == columns]


NAMES = {name.strip("`"): float(value) for name, value, _ in cells(section("What it costs"), 3)
         if re.fullmatch(r"[\d.]+", value)}  # fmt: skip
COSTS = [(what, sum_.strip("`"), dollars) for what, sum_, dollars in
         cells(section("What it costs"), 3) if sum_.startswith("`")]  # fmt: skip


def value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=float() | int() as number):
            return number
        case ast.Name(id=name):
            return NAMES[name]
        case ast.BinOp(left=left, op=op, right=right):
            return OPERATORS[type(op)](value(left), value(right))
    raise AssertionError(f"not arithmetic: {ast.dump(node)}")


def test_every_alert_of_the_deployment_has_its_line_and_no_other_has() -> None:
    assert len(alerts()) > 8
    told = {row[0].strip("`") for row in cells(section("Alerts"), 4) if row[0].startswith("`")}
    assert told == alerts()


def test_each_line_says_three_things_to_look_at() -> None:
    for alert, _, look, _ in cells(section("Alerts"), 4)[1:]:
        if alert.startswith("`"):
            assert re.findall(r"(\d)\. ", look) == ["1", "2", "3"], alert


@pytest.mark.parametrize(("what", "sum_", "dollars"), COSTS, ids=[one[0] for one in COSTS])
def test_a_cost_is_what_its_arithmetic_says(what: str, sum_: str, dollars: str) -> None:
    assert f"{value(ast.parse(sum_, mode='eval').body):.2f}" == dollars


def test_every_name_is_used_and_every_price_says_where_it_is_published() -> None:
    used = {name for _, sum_, _ in COSTS for name in re.findall(r"\b[a-z]\w+", sum_)}
    assert len(NAMES) > 20
    assert used == set(NAMES)
    prices = [row for row in cells(section("What it costs"), 3) if row[0].startswith("`price_")]
    unsaid = [row[0] for row in prices if "pricing/" not in row[2] and "same page" not in row[2]]
    assert unsaid == []
