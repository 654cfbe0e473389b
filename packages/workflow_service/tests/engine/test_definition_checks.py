"""What is wrong with a definition is told before it runs: all at once, each with its place and what to write."""

import json
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from workflow_service.domain.external import ServiceDescription
from workflow_service.workflows.engine.definition import service_problems
from workflow_service.workflows.engine.problems import DefinitionError
from workflow_service.workflows.engine.reading import read_definition
from workflow_service.workflows.engine.schemas import definition_schema

HEAD = "name: tried\ndescription: Tried.\n"


def problems(text: str) -> list[str]:
    """Return what is told of a definition, without the file's name."""
    with pytest.raises(DefinitionError) as refused:
        read_definition(text, "x.yaml")
    return [str(problem).removeprefix("x.yaml:") for problem in refused.value.problems]


def test_every_fault_of_the_structure_is_told_at_once() -> None:
    """Each at its line and column, with the nearest word there is."""
    text = """\
name: Tried
description: Tried.
input:
  type: object
  properties:
    city: {type: strin, pattern: x}
steps:
  weather:
    type: external_service
    servce: weatherapi
    operation: current
    retry: {attempts: 0}
    on_error: ignore
  w-x:
    type: transfrom
  other: {}
outputs: {}
"""
    told = problems(text)
    for expected in (
        "1:1: the definition lacks 'output'",
        "1:7: name must begin with a small letter",
        "6:18: input.properties.city.type must be one of",
        "6:25: unknown key 'pattern'; there are: additionalProperties, default",
        "8:3: steps.weather lacks 'service'",
        "10:5: unknown key 'servce'; did you mean 'service'?",
        "12:23: steps.weather.retry.attempts must be at least 1, is 0",
        '13:15: steps.weather.on_error must be one of "fail", "continue"',
        "14:3: the name 'w-x' must begin with a small letter",
        "15:11: steps.w-x.type must be one of",
        "16:3: steps.other lacks 'type'",
        "17:1: unknown key 'outputs'; did you mean 'output'?",
    ):
        assert any(line.startswith(expected) for line in told), expected
    assert len(told) == 12
    assert "did you mean 'transform'?" in told[9]


def test_every_fault_of_the_meaning_is_told_at_once() -> None:
    """References to what there is not, to oneself, in a circle; conditions and schemas that cannot be."""
    text = (
        HEAD
        + """\
input:
  type: object
  properties:
    city: {type: string, default: 3}
    where: {type: object, properties: {lat: {type: number}}}
  required: [town]
constants: {codes: {a: 1}}
steps:
  weather:
    type: external_service
    service: "${{ input.city }}"
    operation: current
    params:
      q: "${{ input.cty }} ${{ steps.wether.data }} ${{ steps.words.dat }} ${{ input.where.lon }}"
    when: "if ${{ input.city }}"
  words:
    type: transform
    value: |
      hello
      ${{ stes.weather.data }}
      ${{ lenght(steps.weather.data) }} ${{ !steps.weather.success }} ${{ constants.codes.b }}
  a: {type: transform, value: "${{ steps.b.data }}"}
  b: {type: transform, value: "${{ steps.c.data }}"}
  c: {type: transform, value: "${{ steps.a.data }}", needs: [c, zz]}
  m: {type: language_model, prompt: "${{ @ }}", schema: {type: object, required: 3}}
output: "${{ steps.a.data"
"""
    )
    told = problems(text)
    for expected in (
        "6:35: this default must be a text, is the number 3",
        "8:14: there is no property 'town'; there are: city, where",
        "13:15: service takes no expressions; write the value itself",
        "16:15: input has no 'cty'; did you mean 'city'?, in 'input.cty'",
        "16:32: there is no step 'wether'; did you mean 'weather'?",
        "16:57: steps.words has no 'dat'; did you mean 'data'?",
        "16:80: input.where has no 'lon'",
        "17:11: when must be one expression",
        "22:11: there is no 'stes'; did you mean 'steps'?",
        "23:11: there is no function lenght(); did you mean 'length'?",
        "23:45: name a step: steps.NAME (and after ! write it in parentheses",
        "23:75: constants.codes has no 'b'",
        "24:3: steps wait for each other: a → b → c → a",
        "26:62: the step 'c' cannot need itself",
        "26:65: there is no step 'zz'",
        "27:42: @ stands for everything here",
        "27:82: this is no JSON Schema: required must be a list",
        "28:10: the expression is not closed",
    ):
        assert any(line.startswith(expected) for line in told), (expected, told)
    assert len(told) == 18


def test_json_is_told_with_its_place_too() -> None:
    """The same checks, whatever the form."""
    text = json.dumps(
        {"name": "x", "description": "x", "steps": {"a": {"type": "transform"}}, "output": {}}, indent=1
    )
    assert problems(text) == ["5:3: steps.a lacks 'value'"]


@pytest.mark.parametrize("text", ["[1, 2]", "hello", "3", "steps: []", "name:\ndescription:\nsteps:\noutput:\n"])
def test_what_is_no_definition_at_all_is_refused(text: str) -> None:
    """With what must stand there instead."""
    assert problems(text)


def test_references_make_the_order() -> None:
    """A step comes after those that it reads, wherever it reads them, and after those it names."""
    text = (
        HEAD
        + """\
steps:
  last: {type: transform, value: 1, needs: [b, c]}
  c: {type: transform, value: 1, on_error: {default: "${{ steps.a.error }}"}}
  b: {type: transform, value: 1, when: "${{ steps.a.success }}"}
  a: {type: transform, value: "${{ input }}"}
output: {}
"""
    )
    definition = read_definition(text, "x.yaml")
    assert dict(definition.waves) == {"a": 0, "b": 1, "c": 1, "last": 2}
    assert {step.name: step.needs for step in definition.steps.values()} == {
        "a": frozenset(),
        "b": {"a"},
        "c": {"a"},
        "last": {"b", "c"},
    }


def fingerprints(text: str) -> dict[str, str]:
    return {step.name: step.fingerprint for step in read_definition(text, "x.yaml").steps.values()}


@pytest.mark.parametrize(
    ("before", "after", "touched"),
    [
        ("value: 1", "value: 2", ["a", "b"]),
        ("{x: 1}", "{x: 2}", []),
        ("timeout: 5", "timeout: 6", []),
        ("needs: [c]", "needs: [c, a]", ["d"]),
        ("seven: 7", "seven: 8", ["e"]),
        ("default: 3", "default: 4", ["f"]),
        ("operation: o", "operation: p", ["c", "d"]),
    ],
)
def test_fingerprints_tell_what_a_change_touches(before: str, after: str, touched: list[str]) -> None:
    """Steps that do something else, and all that need them; what does not change a result touches nothing."""
    text = (
        HEAD
        + """\
input: {type: object, properties: {n: {type: integer, default: 3}, m: {type: integer}}}
constants: {seven: 7, eight: 8}
steps:
  a: {type: transform, value: 1}
  b: {type: transform, value: "${{ steps.a.data }}"}
  c: {type: external_service, service: s, operation: o, timeout: 5}
  d: {type: transform, value: "${{ input.m }}", needs: [c]}
  e: {type: transform, value: "${{ constants.seven }}"}
  f: {type: transform, value: "${{ input.n }}"}
output: {x: 1}
"""
    )
    assert before in text
    first, second = fingerprints(text), fingerprints(text.replace(before, after))
    assert [name for name in sorted(first) if first[name] != second[name]] == touched


def test_the_published_schema_is_a_schema_and_says_what_the_reference_says() -> None:
    """Editors and the service use the same file, and it is in the documentation."""
    schema = definition_schema()
    Draft202012Validator.check_schema(schema)
    shipped = (files("workflow_service") / "workflows/engine/definition.schema.json").read_text("utf-8")
    assert json.loads(shipped) == schema


SERVICES = [
    ServiceDescription(
        "weather",
        "Weather.",
        {
            "current": {
                "type": "object",
                "properties": {"q": {"type": "string"}, "days": {"type": "integer", "maximum": 3}},
                "required": ["q"],
                "additionalProperties": False,
            }
        },
        is_configured=True,
    )
]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("service: weather, operation: current, params: {q: x}", []),
        ("service: weather, operation: current, params: {q: '${{ input }}', days: '${{ input }}'}", []),
        ("service: wether, operation: current", ["4:40: there is no service 'wether'; did you mean 'weather'?"]),
        ("service: weather, operation: now", ["4:60: weather has no operation 'now'; there are: current"]),
        ("service: weather, operation: current", ["4:3: current needs 'q'"]),
        (
            "service: weather, operation: current, params: {qq: x, days: 4}",
            [
                "4:69: current needs 'q'",
                "4:78: current has no parameter 'qq'; did you mean 'q'?",
                "4:91: current's days must be at most 3, is 4",
            ],
        ),
    ],
)
def test_what_services_do_not_have_is_told(step: str, told: list[str]) -> None:
    """Services, operations, parameters, and values that stand there already."""
    text = f"{HEAD}steps:\n  w: {{type: external_service, {step}}}\noutput: {{}}\n"
    definition = read_definition(text, "x.yaml")
    found: list[Any] = sorted(service_problems(definition, SERVICES))
    assert [str(problem).removeprefix("x.yaml:") for problem in found] == told
