"""Expressions: what they read, what they give, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_service.workflows.engine import interpreter
from workflow_service.workflows.engine.expressions import Expression, Template
from workflow_service.workflows.engine.interpreter import ExpressionError, is_truth

NAMES = {
    "input": {"city": "Berlin", "n": 3, "none": None, "list": [1, 2]},
    "constants": {"codes": {"Berlin": "BER"}},
    "steps": {"a": {"success": True, "data": {"items": [{"x": 1, "y": "p"}, {"x": 5, "y": "q"}]}}},
}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("${{ input.n }}", 3),
        ("  ${{ input.n }}", "  3"),
        ("${{input.list}}", [1, 2]),
        ("in ${{ input.city }} at ${{ input.n }}", "in Berlin at 3"),
        ("<${{ input.none }}${{ input.list }}>", "<[1, 2]>"),
        ("${{ {a: {b: input.n}} }}", {"a": {"b": 3}}),
        ("${{ '}} ' }}x", "}} x"),
        ("$${{ input.n }}", "${{ input.n }}"),
        ("a $${{ b ${{ input.n }}", "a ${{ b 3"),
        ("costs $5 {{ }} $", "costs $5 {{ }} $"),
        ("${{ steps.a.data.items[?x > `2`].y | [0] }}", "q"),
        ("${{ lookup(constants.codes, input.city) }}", "BER"),
        ("${{ lookup(constants.codes, input.none) || 'none' }}", "none"),
        ("${{ require(input.city, 'no city') }}", "Berlin"),
        ("${{ join('-', [input.city, to_string(input.list)]) }}", "Berlin-[1,2]"),
        ("${{ [[input.list, input.n], `[[]]`][] }}", [[1, 2], 3, []]),
        (
            "${{ [input.list == `[1, 2]`, input.list != `[1]`, input.n > `3`, input > `3`] }}",
            [True, True, False, None],
        ),
        (
            "${{ [contains(input.list, `2`), contains(input.city, 'er'), contains([input.list], `[1, 2]`)] }}",
            [True, True, True],
        ),
        ({"k": ["${{ input.n }}", 5, None, True]}, {"k": [3, 5, None, True]}),
    ],
)
def test_values_are_made_of_expressions(template: Any, value: Any) -> None:
    """A whole text keeps the type; within a text the value is written out; the rest stays as it is."""
    assert Template.parse(template).value(NAMES) == value


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("steps.a.data[0].b", ["steps.a.data"]),
        ("steps.a.data[*].{x: y, z: input.q}", ["steps.a.data"]),
        ("input.x || steps.b.data", ["input.x", "steps.b.data"]),
        ("sort_by(steps.a.data, &name)", ["steps.a.data"]),
        ("steps.a | [data.x, error]", ["steps.a.data.x", "steps.a.error"]),
        ("@.steps.a.data", ["steps.a.data"]),
        ('"steps".a.data', ["steps.a.data"]),
        ("(steps.a.data)[?x > `1`]", ["steps.a.data"]),
        ("steps.*.data", ["steps"]),
        ("!steps.a.success", ["steps"]),
        ("keys(@)", [""]),
        ("`[1]`[0]", []),
        ("{a: steps.b.data}.a", ["steps.b.data"]),
    ],
)
def test_references_are_known_before_a_run(text: str, reads: list[str]) -> None:
    """From the top only: what is read of elements, or of values made in between, is nobody's need."""
    assert sorted(".".join(path) for path in Expression.parse(text).references()) == reads


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${{ input.x", "is not closed; write }}"),
        ("${{ 'x }}", "a ' is not closed"),
        ("${{ }}", "is empty"),
        ("${{ a. }}", "this is no JMESPath"),
        ("${{ lenght(input) }}", "no function lenght(); did you mean 'length'?"),
        ("${{ length(a, b) }}", "length() takes 1 arguments, here are 2"),
        ("${{ merge() }}", "merge() takes at least 1"),
        ("${{ " + "a" * 4001 + " }}", "has 4,001 characters"),
        ("${{ " + "(" * 1500 + "a" + ")" * 1500 + " }}", "nested too deep"),
    ],
)
def test_wrong_expressions_are_refused(text: str, reason: str) -> None:
    """When they are read, not when they run."""
    with pytest.raises(ExpressionError) as refused:
        Template.parse(text)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${{ sum(input.city) }}", "sum(), invalid type"),
        ("${{ require(input.none, 'there is no city') }}", "there is no city"),
        ("${{ " + "|".join(["[@,@]"] * 30) + " }}", "too large: at most 100,000 values"),
        ("x${{ " + "|".join(["[@,@]"] * 30) + " }}", "too large"),
        ("${{ " + "|".join(["[@]"] * 250) + " }}", "nested deeper than 200 levels"),
        ("${{ to_number('nan') }}", "holds nan, which is no JSON number"),
        ("${{ input.list" + "|[@,@][]" * 40 + "|length(@) }}", "takes too long"),
        ("${{ input.list" + "|[@,@]" * 40 + "[*]" * 40 + "|length(@) }}", "takes too long"),
        ("${{ 'ab'" + "|join('',[@,@])" * 40 + "|length(@) }}", "takes too long"),
        (
            "${{ input.list" + "|[@,@][]" * 18 + "[*].to_string([@,'" + "a" * 999 + "'])|length(@) }}",
            "takes too long",
        ),
        ("${{ length(to_string(input.list" + "|[@,@]" * 40 + ")) }}", "too large"),
        ("${{ (input.list" + "|[@,@]" * 40 + ")==(input.list" + "|[@,@]" * 40 + ") }}", "too large"),
        ("${{ contains([input.list" + "|[@,@]" * 40 + "],(input.list" + "|[@,@]" * 40 + ")) }}", "too large"),
    ],
)
def test_what_cannot_be_worked_out_is_an_error(text: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what doubles at each step: told before it takes the process's memory or its GIL."""
    monkeypatch.setattr(interpreter, "MAX_WORK", 200_000)  # seconds less for each of them
    with pytest.raises(ExpressionError) as refused:
        Template.parse(text).value({"input": NAMES["input"]})
    assert reason in str(refused.value)


@pytest.mark.parametrize("value", [False, None, "", [], {}])
def test_what_is_empty_is_false(value: Any) -> None:
    """As JMESPath has it."""
    assert not is_truth(value)


@pytest.mark.parametrize("value", [True, 0, 0.0, "no", [0], {"a": None}])
def test_what_is_not_empty_is_true(value: Any) -> None:
    """Zero too: JMESPath knows numbers as true."""
    assert is_truth(value)


@given(st.text("${} '\"`ab.|[]()\\", max_size=40))
def test_any_text_is_read_or_refused_as_an_expression(text: str) -> None:
    """Nothing but ExpressionError comes out."""
    try:
        Template.parse(text).value(NAMES)
    except ExpressionError:
        return
