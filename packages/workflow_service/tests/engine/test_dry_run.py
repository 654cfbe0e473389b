"""A dry run tells the order of the steps and what each would be given, and asks nobody."""

from typing import Any

import pytest

from workflow_service.ports import InvalidInputError
from workflow_service.workflows.engine.dry_run import plan
from workflow_service.workflows.engine.reading import read_definition

TEXT = """\
name: tried
description: Tried.
input: {type: object, required: [city], properties: {city: {type: string}, days: {type: integer, default: 2}}}
steps:
  upper: {type: transform, value: "in ${{ input.city }}"}
  weather:
    type: external_service
    service: weather
    operation: forecast
    params: {q: "${{ input.city }}", said: "${{ steps.upper.data }}", days: "${{ input.days }}"}
  places:
    type: external_service
    service: places
    operation: near
    params: {at: "${{ steps.weather.data.at }}", city: "${{ input.city }}", mix: ["${{ input.days }}"]}
  other: {type: transform, when: "${{ input.days > `5` }}", value: "${{ steps.weather.data }}"}
  later: {type: transform, when: "${{ steps.places.success }}", value: "${{ steps.other.status }}"}
  bad: {type: transform, value: "${{ sum(input.city) }}"}
  words: {type: language_model, prompt: "It is ${{ steps.weather.data.temp }} in ${{ input.city }}"}
output: {city: "${{ input.city }}", places: "${{ steps.places.data }}"}
"""


def planned(input_data: dict[str, Any], **assumed: Any) -> tuple[dict[str, Any], Any]:
    found = plan(read_definition(TEXT, "x.yaml"), input_data, assumed)
    return {step.name: step for step in found.steps}, found.output


def test_what_is_known_is_filled_in_and_the_rest_stands() -> None:
    """Input and its defaults, transforms that can be worked out; conditions that hold, do not, or will be seen."""
    steps, output = planned({"city": "Berlin"})
    assert list(steps) == [*sorted(steps, key=lambda name: steps[name].wave)]
    assert steps["upper"].gives == "in Berlin"
    assert steps["weather"].given == {"q": "Berlin", "said": "in Berlin", "days": 2}
    assert steps["weather"].kind == "external_service weather forecast"
    assert steps["places"].given == {"at": "${{ steps.weather.data.at }}", "city": "Berlin", "mix": [2]}
    assert (steps["places"].wave, steps["places"].needs) == (2, ("weather",))
    assert steps["other"].runs is False
    assert (steps["later"].runs, steps["later"].gives) == (None, "skipped")
    assert "sum(), invalid type" in steps["bad"].fault
    assert steps["words"].given == {"prompt": "It is ${{ steps.weather.data.temp }} in Berlin"}
    assert output == {"city": "Berlin", "places": "${{ steps.places.data }}"}


def test_assumed_answers_let_it_go_on() -> None:
    """As if the service had said so."""
    steps, output = planned({"city": "Berlin", "days": 9}, weather={"at": 5, "temp": 7}, places=["x"])
    assert steps["places"].given["at"] == 5
    assert (steps["other"].runs, steps["other"].gives) == (True, {"at": 5, "temp": 7})
    assert steps["words"].given == {"prompt": "It is 7 in Berlin"}
    assert output["places"] == ["x"]


@pytest.mark.parametrize(
    ("input_data", "assumed", "told"),
    [
        ({}, {}, "input.city is missing"),
        ({"city": "x"}, {"wether": 1}, "no step 'wether'; did you mean 'weather'?"),
    ],
)
def test_what_cannot_be_is_refused(input_data: dict[str, Any], assumed: dict[str, Any], told: str) -> None:
    """As it would be in a run."""
    with pytest.raises(InvalidInputError) as refused:
        planned(input_data, **assumed)
    assert told in str(refused.value)
