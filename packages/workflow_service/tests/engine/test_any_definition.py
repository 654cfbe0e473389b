"""Whatever the steps, their needs and their faults: the order holds, and a second life changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver

from workflow_service.domain.external import ExternalServiceResponse
from workflow_service.ports import RunContext, WorkflowError
from workflow_service.workflows.engine.reading import read_definition
from workflow_service.workflows.engine.workflow import DefinedWorkflow


@dataclass(frozen=True)
class Shape:
    """A step: what it needs, whether it is refused, what then, whether it has a condition, how long it takes."""

    needs: tuple[int, ...]
    is_refused: bool
    on_error: str
    has_condition: bool
    turns: int


@st.composite
def shapes(draw: st.DrawFn) -> list[Shape]:
    count = draw(st.integers(1, 8))
    return [
        Shape(
            needs=tuple(draw(st.lists(st.integers(0, number - 1), unique=True, max_size=3))) if number else (),
            is_refused=draw(st.booleans()),
            on_error=draw(st.sampled_from(["continue", "continue", "{default: 7}", "fail"])),
            has_condition=draw(st.booleans()),
            turns=draw(st.integers(0, 5)),
        )
        for number in range(count)
    ]


def definition_of(steps: list[Shape]) -> str:
    lines = ["name: any", "description: Any.", "max_parallel: 3", "steps:"]
    for number, step in reversed(list(enumerate(steps))):  # the file's order is not the order of work
        lines += [f"  s{number}:", "    type: external_service", "    service: s", f"    operation: o{number}"]
        lines += [f"    on_error: {step.on_error}"]
        if step.needs:
            reads = ", ".join(f"steps.s{need}.data" for need in step.needs)
            lines += [f"    params: {{reads: '${{{{ [{reads}] }}}}'}}"]
        if step.has_condition and step.needs:
            lines += [f"    when: ${{{{ steps.s{step.needs[0]}.success }}}}"]
    outcomes = ", ".join(f"s{number}: '${{{{ steps.s{number} }}}}'" for number in range(len(steps)))
    return "\n".join([*lines, f"output: {{{outcomes}}}"])


class Services:
    """Answers as the shapes say, and checks that what a step needs has ended before it begins."""

    def __init__(self, steps: list[Shape]) -> None:
        self._steps = steps
        self.asked: list[int] = []

    def describe(self) -> list[Any]:
        return []

    @asynccontextmanager
    async def open(self, _name: str) -> AsyncIterator["Services"]:
        yield self

    async def call(
        self, operation: str, params: Mapping[str, Any], user_id: str, cache_ttl: float | None = None
    ) -> ExternalServiceResponse:
        number = int(operation[1:])
        self.asked.append(number)
        for _ in range(self._steps[number].turns):
            await asyncio.sleep(0)
        if self._steps[number].is_refused:
            return ExternalServiceResponse(False, error=f"{number} is refused")
        return ExternalServiceResponse(True, {"of": number, "reads": params.get("reads")})


class DiedError(BaseException):
    """As a killed worker."""


async def attempt(workflow: DefinedWorkflow, run_id: UUID, die_at: str | None, told: list[str]) -> Any:
    """Run; return the output, or the words of the failure, or None if the worker died."""
    percents: list[int] = []

    async def report(step: str, percent: int, _description: str) -> None:
        if step == die_at:
            raise DiedError
        told.append(step)
        percents.append(percent)

    try:
        output: Any = await workflow.run(RunContext(run_id, "alice", {}, report))
    except WorkflowError as error:
        output = str(error)
    except BaseExceptionGroup as ended:
        if ended.split(DiedError)[0] is None:
            raise
        output = None
    assert percents == sorted(percents)
    return output


@settings(max_examples=40, deadline=None)
@given(shapes(), st.data())
def test_order_holds_and_a_second_life_changes_nothing(steps: list[Shape], data: st.DataObject) -> None:
    """A step is asked after what it needs, once; after a death at any step the output is that of a whole run."""

    async def main() -> None:
        saver: BaseCheckpointSaver[Any] = InMemorySaver()

        @asynccontextmanager
        async def lend(_run_id: UUID, _attempt: int | None) -> AsyncIterator[BaseCheckpointSaver[Any]]:
            yield saver

        services = Services(steps)
        workflow = DefinedWorkflow(read_definition(definition_of(steps), "any.yaml"), services, None, lend)
        ended: list[str] = []
        whole = await attempt(workflow, uuid4(), None, ended)
        assert len(services.asked) == len(set(services.asked))
        for name in ended:
            before = {f"s{need}" for need in steps[int(name[1:])].needs}
            assert before <= set(ended[: ended.index(name)])
        if isinstance(whole, str):
            return  # which of several failures comes first is a matter of turns
        assert sorted(ended) == sorted(f"s{number}" for number in range(len(steps)))
        assert all(outcome["status"] in ("succeeded", "failed", "skipped") for outcome in whole.values())

        run_id, first, second = uuid4(), [], []
        services.asked.clear()
        die_at = data.draw(st.sampled_from(ended), label="die at")
        assert await attempt(workflow, run_id, die_at, first) is None
        asked = set(services.asked)
        services.asked.clear()
        assert await attempt(workflow, run_id, None, second) == whole
        assert set(first).isdisjoint(second)
        assert {*first, *second} == set(ended)
        kept = {int(name[1:]) for name in first}
        assert kept.isdisjoint(services.asked)
        assert asked | set(services.asked) == {
            number for number in range(len(steps)) if whole[f"s{number}"]["status"] != "skipped"
        }

    asyncio.run(main())
