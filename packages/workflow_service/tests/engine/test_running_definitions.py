"""Running a definition: order, side by side, errors, retries, time-outs, conditions, cancellation."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from uuid import uuid4

import pytest

from workflow_service.domain.external import ExternalServiceResponse
from workflow_service.ports import (
    ClaimLostError,
    InvalidInputError,
    ModelUnavailableError,
    RunContext,
    StoreUnavailableError,
    WorkflowError,
)
from workflow_service.workflows.engine.problems import DefinitionError

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]

TWO = """\
input: {type: object, properties: {city: {type: string}, days: {type: integer, default: 2}}, required: [city]}
steps:
  weather:
    type: external_service
    service: weather
    operation: forecast
    params: {q: "${{ input.city }}", days: "${{ input.days }}", lang: "${{ steps.language.data }}"}
    cache_ttl: 60
  language: {type: transform, value: null}
  words:
    type: language_model
    system: You are terse.
    prompt: Say that it is ${{ steps.weather.data.temp }} degrees in ${{ input.city }}.
output:
  said: ${{ steps.words.data }}
  cached: ${{ steps.weather.cached }}
  tokens: ${{ steps.words.metadata.usage.output_tokens }}
"""


def test_steps_get_what_they_read_and_the_output_is_made_of_them(bench: Any, run: Run) -> None:
    """Input with its defaults, the user, the cache's age; parameters that are null are left out."""
    bench.services.says("weather.forecast", {"temp": 7}, cached=True)
    output = run(lambda: bench.run(TWO, {"city": "Berlin"}))
    assert output == {"said": "Say that it is 7 degrees in Berlin.", "cached": True, "tokens": 5}
    assert bench.services.calls == [("weather.forecast", {"q": "Berlin", "days": 2}, "alice", 60)]
    assert bench.model.prompts == [("Say that it is 7 degrees in Berlin.", "You are terse.", None, "alice")]
    assert bench.services.open_now == 0
    assert [(step, percent) for step, percent, _ in bench.steps.told] == [
        ("language", 33),
        ("weather", 66),
        ("words", 100),
    ]
    assert bench.steps.told[1][2] == "asked weather for forecast, from the cache"


def test_a_model_answers_with_an_object_that_fits_a_schema(bench: Any, run: Run) -> None:
    """The step's data is that object."""
    bench.model.answer = lambda _prompt: {"mood": "good"}
    text = """\
steps:
  m: {type: language_model, prompt: Ask, schema: {type: object, properties: {mood: {type: string}}}}
output: {mood: "${{ steps.m.data.mood }}"}
"""
    assert run(lambda: bench.run(text)) == {"mood": "good"}
    assert bench.model.prompts[0][2] == {"type": "object", "properties": {"mood": {"type": "string"}}}


@pytest.mark.parametrize(
    ("input_data", "place", "message"),
    [
        ({}, "city", "is missing"),
        ({"city": 3}, "city", "must be a text, is the number 3"),
        ({"city": "x", "cty": 1}, "cty", "is not known; did you mean 'city'?"),
    ],
)
def test_input_that_does_not_fit_is_refused(
    bench: Any, input_data: dict[str, Any], place: str, message: str
) -> None:
    """Before the run is kept, with the place in the request, so that a form can show it beside the field."""
    with pytest.raises(InvalidInputError) as refused:
        bench.workflow(TWO).check(input_data)
    assert str(refused.value) == f"input.{place} {message}"
    assert refused.value.faults == ((f"input_data.{place}", message),)


@pytest.mark.parametrize(
    ("rule", "value", "message"),
    [
        ("{type: integer, minimum: 2}", 1, "must be at least 2, is 1"),
        ("{type: number, exclusiveMaximum: 2}", 2, "must be less than 2, is 2"),
        ("{type: string, minLength: 1}", "", "must not be empty"),
        ("{type: string, maxLength: 2}", "abc", "must have at most 2 characters, has 3"),
        ("{type: array, minItems: 2}", [1], "must have at least 2 entries, has 1"),
        ("{type: string, format: date}", "soon", "must be a date such as 2026-11-30, is 'soon'"),
        ("{type: string, format: document-id}", "x", "must be the id of an uploaded document, is 'x'"),
        ("{type: string, enum: [red, green]}", "gren", 'must be one of "red", "green"; did you mean \'green\'?'),
        ("{type: [string]}", None, None),
    ],
)
def test_each_rule_has_words_of_its_own(bench: Any, rule: str, value: Any, message: str | None) -> None:
    """That say what would be right, and what is there."""
    text = f"input: {{type: object, properties: {{x: {rule}}}}}\nsteps:\n  a: {{type: transform, value: 1}}\n"
    if message is None:  # a list of types is none of the forms that the page knows
        with pytest.raises(DefinitionError, match=r"input\.properties\.x\.type must be one of"):
            bench.workflow(text)
        return
    with pytest.raises(InvalidInputError) as refused:
        bench.workflow(text).check({"x": value})
    assert str(refused.value) == f"input.x {message}"


def test_steps_that_do_not_need_each_other_work_side_by_side(bench: Any, run: Run) -> None:
    """Both are there at the same time; what needs one of them does not wait for the other."""

    async def main() -> Any:
        slow_may_end, after_fast = asyncio.Event(), asyncio.Event()

        async def slow(_params: Mapping[str, Any]) -> ExternalServiceResponse:
            await slow_may_end.wait()
            return ExternalServiceResponse(True, "slow")

        async def after(_params: Mapping[str, Any]) -> ExternalServiceResponse:
            slow_may_end.set()  # so slow cannot end before a step has begun that needs fast alone
            after_fast.set()
            return ExternalServiceResponse(True, "after")

        bench.services.answers |= {"s.slow": slow, "s.after": after}
        bench.services.says("s.fast", "fast")
        output = await bench.run(
            """\
steps:
  slow: {type: external_service, service: s, operation: slow}
  fast: {type: external_service, service: s, operation: fast}
  after: {type: external_service, service: s, operation: after, needs: [fast]}
output: {all: "${{ [steps.slow.data, steps.fast.data, steps.after.data] }}"}
"""
        )
        assert after_fast.is_set()
        return output

    assert run(main) == {"all": ["slow", "fast", "after"]}
    assert bench.steps.names[-1] == "slow"


def test_no_more_steps_than_allowed_work_at_once(bench: Any, run: Run) -> None:
    """`max_parallel` bounds them; the others wait their turn."""
    most = 0

    async def count(_params: Mapping[str, Any]) -> ExternalServiceResponse:
        nonlocal most
        most = max(most, bench.services.open_now)
        for _ in range(5):
            await asyncio.sleep(0)
        return ExternalServiceResponse(True, 1)

    bench.services.answers["s.o"] = count
    steps = "".join(f"  s{n}: {{type: external_service, service: s, operation: o}}\n" for n in range(20))
    run(lambda: bench.run(f"max_parallel: 3\nsteps:\n{steps}"))
    assert most == 3
    assert bench.services.opened == 20


def test_a_failure_ends_the_run_with_the_step_s_own_words(bench: Any, run: Run) -> None:
    """And cancels those that work beside it, which close what they opened."""

    async def main() -> None:
        beside_works, was_cancelled = asyncio.Event(), False

        async def beside(_params: Mapping[str, Any]) -> ExternalServiceResponse:
            nonlocal was_cancelled
            beside_works.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                was_cancelled = True
                raise
            raise AssertionError

        async def fails(_params: Mapping[str, Any]) -> ExternalServiceResponse:
            await beside_works.wait()
            return ExternalServiceResponse(False, error="no such place")

        bench.services.answers |= {"s.beside": beside, "s.fails": fails}
        with pytest.raises(WorkflowError) as failed:
            await bench.run(
                """\
steps:
  beside: {type: external_service, service: s, operation: beside}
  weather: {type: external_service, service: s, operation: fails}
"""
            )
        assert str(failed.value) == "the step 'weather' failed: no such place"
        assert was_cancelled
        assert bench.services.open_now == 0
        assert len(asyncio.all_tasks()) == 1

    run(main)


def test_a_failure_may_be_gone_on_from(bench: Any, run: Run) -> None:
    """Without data, or with a default, which may be made of expressions; the reason can be read."""
    bench.services.refuses("s.o", "the provider is away")
    text = """\
input: {type: object, properties: {city: {type: string, default: Rome}}}
steps:
  a: {type: external_service, service: s, operation: o, on_error: continue}
  b: {type: external_service, service: s, operation: o, on_error: {default: {name: "${{ input.city }}"}}}
  c: {type: transform, value: "${{ sum(input.city) }}", on_error: continue}
  d: {type: external_service, service: unknown, operation: o, on_error: continue}
output:
  a: ${{ steps.a }}
  b: ${{ steps.b.data.name }}
  c: ${{ steps.c.error }}
  d: ${{ steps.d.error }}
"""
    output = run(lambda: bench.run(text))
    assert output["a"] == {
        "success": False,
        "status": "failed",
        "data": None,
        "error": "the provider is away",
        "cached": False,
        "metadata": {},
    }
    assert output["b"] == "Rome"
    assert "sum(), invalid type" in output["c"]
    assert output["d"] == "unknown is not configured; set WORKFLOW_SERVICES__UNKNOWN__API_KEY"
    assert ("a", "failed, and the run goes on: the provider is away") in {(s, d) for s, _, d in bench.steps.told}


def test_a_condition_skips_a_step_and_what_needs_it_still_runs(bench: Any, run: Run) -> None:
    """The skipped step's data is null; a step that wants more says so in its own condition."""
    text = """\
steps:
  a: {type: transform, when: "${{ `[]` }}", value: 1}
  b: {type: transform, value: "${{ steps.a.status }}"}
  c: {type: transform, when: "${{ steps.a.success }}", value: 1}
  d: {type: transform, when: false, value: 1}
  e: {type: transform, when: "${{ `0` }}", value: 1}
output: {a: "${{ steps.a.data }}", b: "${{ steps.b.data }}", c: "${{ steps.c.status }}", e: "${{ steps.e.data }}"}
"""
    assert run(lambda: bench.run(text)) == {"a": None, "b": "skipped", "c": "skipped", "e": 1}
    assert len(bench.steps.told) == 5


def test_a_step_is_tried_as_often_as_it_says(bench: Any, run: Run) -> None:
    """Each attempt opens the service anew; the last failure is told."""
    answers = iter(["away", "away", None])

    async def at_last(_params: Mapping[str, Any]) -> ExternalServiceResponse:
        error = next(answers)
        return ExternalServiceResponse(error is None, "there" if error is None else None, error=error)

    bench.services.answers["s.o"] = at_last
    text = """\
steps:
  a: {type: external_service, service: s, operation: o, retry: {attempts: %d, wait: 0}}
output: {a: "${{ steps.a.data }}"}
"""
    assert run(lambda: bench.run(text % 3)) == {"a": "there"}
    assert bench.services.opened == 3
    bench.services.refuses("s.o", "still away")
    with pytest.raises(WorkflowError, match="'a' failed: still away"):
        run(lambda: bench.run(text % 2))
    assert bench.services.opened == 5


def test_what_would_not_help_is_not_tried_again(bench: Any, run: Run) -> None:
    """A service that is not configured, for instance."""
    text = "steps:\n  a: {type: external_service, service: x, operation: o, retry: {attempts: 9, wait: 60}}\n"
    with pytest.raises(WorkflowError, match="'a' failed: x is not configured; set WORKFLOW_SERVICES__X__API_KEY"):
        run(lambda: bench.run(text))


def test_an_attempt_that_takes_too_long_is_cancelled_and_closed(bench: Any, run: Run) -> None:
    """And the next one begins; the time is each attempt's own."""
    begun = 0

    async def hangs_once(_params: Mapping[str, Any]) -> ExternalServiceResponse:
        nonlocal begun
        begun += 1
        if begun == 1:
            await asyncio.Event().wait()
        return ExternalServiceResponse(True, begun)

    bench.services.answers["s.o"] = hangs_once
    text = """\
steps:
  a: {type: external_service, service: s, operation: o, timeout: 0.05, retry: {attempts: %d, wait: 0}}
output: {a: "${{ steps.a.data }}"}
"""
    assert run(lambda: bench.run(text % 2)) == {"a": 2}
    begun = 0
    with pytest.raises(WorkflowError, match=r"'a' failed: it took longer than 0\.05 s"):
        run(lambda: bench.run(text % 1))
    assert bench.services.open_now == 0


def test_a_cancelled_run_closes_what_its_steps_opened(bench: Any, run: Run) -> None:
    """In the middle of two calls; the cancellation comes out, is nothing to try again, and no task is left."""

    async def main() -> None:
        working = asyncio.Semaphore(0)

        async def hangs(_params: Mapping[str, Any]) -> ExternalServiceResponse:
            working.release()
            await asyncio.Event().wait()
            raise AssertionError

        bench.services.answers["s.o"] = hangs
        text = "steps:\n" + "".join(
            f"  {name}: {{type: external_service, service: s, operation: o, on_error: continue{more}}}\n"
            for name, more in (("a", ""), ("b", ", retry: {attempts: 3, wait: 0}"))
        )
        running = asyncio.create_task(bench.run(text))
        for _ in range(2):
            await working.acquire()
        assert bench.services.open_now == 2
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert bench.services.open_now == 0
        assert len(asyncio.all_tasks()) == 1

    run(main)


@pytest.mark.parametrize("loss", [ClaimLostError("another has it"), StoreUnavailableError("away")])
@pytest.mark.parametrize("where", ["service", "report"])
def test_the_loss_of_a_run_or_its_database_is_no_failure_of_a_step(
    bench: Any, run: Run, loss: Exception, where: str
) -> None:
    """It comes out as it is, whatever on_error says, so that the worker knows what to do."""

    async def lost(*_: object) -> Any:
        raise loss

    bench.services.answers["s.o"] = lost
    if where == "report":
        bench.services.says("s.o", 1)
        bench.steps = lost
    step = "type: external_service, service: s, operation: o, on_error: continue, retry: {attempts: 5}"
    with pytest.raises(type(loss)) as raised:
        run(lambda: bench.run(f"steps:\n  a: {{{step}}}\n"))
    assert raised.value is loss


def test_a_model_that_is_away_lets_the_run_be_tried_again(bench: Any, run: Run) -> None:
    """Unless the step goes on without it."""

    def away(_prompt: str) -> Any:
        raise ModelUnavailableError("the provider did not answer")

    bench.model.answer = away
    text = "steps:\n  m: {type: language_model, prompt: Ask%s}\n"
    with pytest.raises(ModelUnavailableError, match="the step 'm' failed: the provider did not answer"):
        run(lambda: bench.run(text % ""))
    assert run(lambda: bench.run(text % ", on_error: continue")) == {}


def test_without_a_model_the_step_says_what_to_set(bench: Any, run: Run) -> None:
    """As with services."""
    bench.model = None
    with pytest.raises(WorkflowError, match="no language model is configured; set WORKFLOW_MODEL"):
        run(lambda: bench.run("steps:\n  m: {type: language_model, prompt: Ask}\n"))


def test_what_a_plug_in_raises_is_for_the_log(bench: Any, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The user learns the run and the kind; hosts and keys stay in the log."""

    async def breaks(_params: Mapping[str, Any]) -> ExternalServiceResponse:
        raise KeyError("https://host/?key=secret")

    bench.services.answers["s.o"] = breaks
    run_id = uuid4()
    with caplog.at_level(logging.ERROR), pytest.raises(WorkflowError) as failed:
        run(lambda: bench.run("steps:\n  a: {type: external_service, service: s, operation: o}\n", run_id=run_id))
    message = f"the step 'a' failed: it failed unexpectedly (KeyError); look for run {run_id} in the worker's log"
    assert str(failed.value) == message
    assert [record.getMessage() for record in caplog.records] == [f"run {run_id}: step 'a' failed"]


@pytest.mark.parametrize("data", [object(), float("nan"), {1, 2}])
def test_an_answer_that_is_no_json_is_a_failure(bench: Any, run: Run, data: object) -> None:
    """Of the step, not of the run's store."""
    bench.services.says("s.o", data)
    with pytest.raises(WorkflowError, match="'a' failed: s answered what is no JSON"):
        run(lambda: bench.run("steps:\n  a: {type: external_service, service: s, operation: o}\n"))


def test_what_no_database_keeps_is_replaced(bench: Any, run: Run) -> None:
    """NUL and halves of characters, which JSON can say; whole characters stay."""
    bench.services.says("s.o", {"a\0": ["x\0y", "\ud83d", "\U0001f600"]})
    text = "steps:\n  a: {type: external_service, service: s, operation: o}\noutput: ${{ steps.a.data }}\n"
    assert run(lambda: bench.run(text)) == {"a\ufffd": ["x\ufffdy", "\ufffd", "\U0001f600"]}


def test_an_output_that_cannot_be_made_says_so(bench: Any, run: Run) -> None:
    """It must be an object, and its expressions must work out."""
    text = "steps:\n  a: {type: transform, value: 1}\noutput: ${{ steps.a.data }}\n"
    with pytest.raises(WorkflowError, match="the output must come out as an object"):
        run(lambda: bench.run(text))
    text = "steps:\n  a: {type: transform, value: 1}\noutput: {x: '${{ keys(steps.a.data) }}'}\n"
    with pytest.raises(WorkflowError, match=r"the output cannot be made: In function keys\(\)"):
        run(lambda: bench.run(text))


def test_runs_of_one_workflow_do_not_mix(bench: Any, run: Run) -> None:
    """Each of many at once has its own input, steps and output."""
    bench.services.says("weather.forecast", {"temp": 7})

    async def main() -> Any:
        workflow = bench.workflow(TWO)
        contexts = [RunContext(uuid4(), f"user {n}", {"city": f"city {n}"}, bench.steps) for n in range(30)]
        return await asyncio.gather(*(workflow.run(context) for context in contexts))

    outputs = run(main)
    assert [output["said"] for output in outputs] == [f"Say that it is 7 degrees in city {n}." for n in range(30)]
    assert {user for _, _, user, _ in bench.services.calls} == {f"user {n}" for n in range(30)}
