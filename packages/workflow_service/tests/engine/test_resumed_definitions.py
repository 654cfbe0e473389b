"""A definition's second lives, on a real PostgreSQL: what is kept is not done again, all else is."""

import json
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg import AsyncConnection

from workflow_service.domain.external import ExternalServiceResponse
from workflow_service.ports import Drain, DrainedError, RunContext, WorkflowError

pytestmark = pytest.mark.needs("postgres")

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]

CHAIN = """\
steps:
  a: {type: external_service, service: s, operation: a}
  b: {type: external_service, service: s, operation: b, needs: [a], on_error: {default: "${{ steps.a.data }}"}}
  c: {type: external_service, service: s, operation: c, needs: [b], when: "${{ steps.b.success }}"}
  d: {type: external_service, service: s, operation: d, needs: [c]}
output: {all: "${{ [steps.a.data, steps.b.data, steps.c.status, steps.d.data] }}"}
"""
STEPS = ["a", "b", "c", "d"]


@pytest.fixture
def bench(postgres_bench: Any) -> Any:
    """Four operations, of which one is refused."""
    for name in "acd":
        postgres_bench.services.says(f"s.{name}", {"of": name, "n": 2**70, "f": 0.1})
    postgres_bench.services.refuses("s.b", "away")
    return postgres_bench


@pytest.mark.parametrize("die_at", STEPS)
def test_a_run_goes_on_where_its_worker_died(
    bench: Any, run: Run, die_at: str, told: Any, worker_died: type[BaseException]
) -> None:
    """A new worker does only the steps that are not kept, failed and skipped ones among them; the output is the
    same, to the last digit of each number."""

    async def main() -> None:
        run_id, whole = uuid4(), await bench.run(CHAIN)
        asked = len(bench.services.calls)
        bench.steps = first = told(die_at)
        with pytest.raises(BaseExceptionGroup) as died:
            await bench.run(CHAIN, run_id=run_id)
        assert died.group_contains(worker_died)
        bench.steps = second = told()
        assert await bench.run(CHAIN, run_id=run_id) == whole
        assert first.names == STEPS[: STEPS.index(die_at)]
        assert second.names == STEPS[STEPS.index(die_at) :]
        again = ["s." + die_at] * (die_at != "c")  # its condition does not hold: it asks nobody
        assert sorted(bench.services.asked()[asked:]) == sorted(["s.a", "s.b", "s.d", *again])
        assert [percent for _, percent, _ in first.told + second.told] == [25, 50, 75, 100]

    run(main)


def test_a_finished_run_gives_its_output_again(bench: Any, run: Run, told: Any) -> None:
    """A worker that died after the last step costs nothing twice."""

    async def main() -> None:
        run_id = uuid4()
        output = await bench.run(CHAIN, run_id=run_id)
        asked, bench.steps = list(bench.services.calls), told()
        assert await bench.run(CHAIN, run_id=run_id) == output
        assert bench.services.calls == asked
        assert bench.steps.told == []

    run(main)


def test_a_failed_run_goes_on_with_the_step_that_failed(bench: Any, run: Run) -> None:
    """What succeeded before and beside it is kept."""
    text = """\
steps:
  a: {type: external_service, service: s, operation: a}
  x: {type: external_service, service: s, operation: x, needs: [a]}
output: {x: "${{ steps.x.data }}"}
"""

    async def main() -> None:
        run_id = uuid4()
        bench.services.refuses("s.x", "no such place")
        with pytest.raises(WorkflowError, match="'x' failed: no such place"):
            await bench.run(text, run_id=run_id)
        bench.services.says("s.x", "found")
        assert await bench.run(text, run_id=run_id) == {"x": "found"}
        assert bench.services.asked() == ["s.a", "s.x", "s.x"]

    run(main)


def test_a_changed_definition_does_what_the_change_touches(bench: Any, run: Run, told: Any) -> None:
    """A run that a release overtakes keeps what still holds, and does the changed step and those that need it."""

    async def main() -> None:
        run_id = uuid4()
        bench.steps = told("d")
        with pytest.raises(BaseExceptionGroup):
            await bench.run(CHAIN, run_id=run_id)
        bench.services.says("s.b2", "new")
        changed = CHAIN.replace("operation: b,", "operation: b2,")
        bench.steps = told()
        output = await bench.run(changed, run_id=run_id)
        assert output["all"][1:3] == ["new", "succeeded"]
        assert bench.steps.names == ["b", "c", "d"]
        assert bench.services.asked().count("s.a") == 1

    run(main)


KILLED = """\
name: tried
description: Tried.
steps:
  a: {type: external_service, service: s, operation: a}
  b: {type: external_service, service: s, operation: b}
  c: {type: external_service, service: s, operation: hang, needs: [a, b]}
output: {all: "${{ [steps.a.data, steps.b.data, steps.c.data] }}"}
"""


def test_a_run_goes_on_after_kill_9(bench: Any, run: Run, empty_database: str, tmp_path: Path) -> None:
    """In the middle of a step: that one is asked again, those before it are not."""
    run_id, file = uuid4(), tmp_path / "killed.yaml"
    file.write_text(KILLED)
    program = Path(__file__).parent / "programs" / "stop_midway.py"
    command = [sys.executable, str(program), empty_database, str(run_id), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "hanging\n"
        worker.kill()
    bench.services.says("s.hang", "asked again")
    assert run(lambda: bench.run(KILLED, run_id=run_id)) == {"all": ["a", "b", "asked again"]}
    assert bench.services.asked() == ["s.hang"]


def test_a_run_that_is_drained_ends_between_steps_and_goes_on(bench: Any, run: Run) -> None:
    """Steps under way end and are kept; those that would come next begin in the second life."""
    text = """\
max_parallel: 2
steps:
  a: {type: external_service, service: s, operation: a}
  x: {type: external_service, service: s, operation: d}
  waiting: {type: external_service, service: s, operation: c}
  after: {type: external_service, service: s, operation: c, needs: [a]}
output: {all: "${{ [steps.a.data.of, steps.x.data.of, steps.waiting.data.of, steps.after.data.of] }}"}
"""

    async def main() -> None:
        run_id, drain, told = uuid4(), Drain(), bench.steps

        async def asked_to_end(_params: Any) -> ExternalServiceResponse:
            drain.request()
            return ExternalServiceResponse(True, {"of": "a"})

        bench.services.answers["s.a"] = asked_to_end
        with pytest.raises(DrainedError):
            await bench.workflow(text).run(RunContext(run_id, "alice", {}, told, drain))
        assert sorted(told.names) == ["a", "x"]
        assert await bench.run(text, run_id=run_id) == {"all": ["a", "d", "c", "c"]}
        assert sorted(bench.services.asked()) == ["s.a", "s.c", "s.c", "s.d"]

    run(main)


async def kept(url: str) -> list[Any]:
    """Return every row of the checkpoint tables that belongs to a run."""
    rows: list[Any] = []
    async with await AsyncConnection.connect(url) as connection:
        for table in ("checkpoints", "checkpoint_writes", "checkpoint_blobs"):
            cursor = await connection.execute(f"SELECT * FROM {table}")
            rows.extend(await cursor.fetchall())
    return rows


def test_a_forgotten_run_leaves_no_row(bench: Any, run: Run, empty_database: str) -> None:
    """Nothing is kept of it, all is kept of another; to forget what is unknown is fine."""

    async def main() -> None:
        run_ids = uuid4(), uuid4()
        for run_id in run_ids:
            await bench.run(CHAIN, run_id=run_id)
        both = len(await kept(empty_database))
        workflow = bench.workflow(CHAIN)
        for _ in range(2):
            await workflow.forget(run_ids[0])
        assert len(await kept(empty_database)) == both / 2
        await workflow.forget(run_ids[1])
        assert await kept(empty_database) == []

    run(main)


def test_a_step_is_stored_before_the_next_begins(bench: Any, run: Run, empty_database: str) -> None:
    """In the database, not on its way there: a kill -9 at any later moment costs no step that has ended."""
    run_id, seen = uuid4(), []

    async def look(_params: Any) -> Any:
        async with await AsyncConnection.connect(empty_database) as connection:
            cursor = await connection.execute(
                "SELECT channel FROM checkpoint_writes WHERE thread_id = %s ORDER BY 1", (str(run_id),)
            )
            seen.append([channel for (channel,) in await cursor.fetchall()])
        return type("Answer", (), {"success": True, "data": 1, "cached": False, "metadata": {}, "error": None})()

    for name in STEPS:
        bench.services.answers[f"s.{name}"] = look
    run(lambda: bench.run(CHAIN, run_id=run_id))
    assert seen == [[], ["a"], ["a", "b"], ["a", "b", "c"]]


def test_what_is_kept_can_be_read_without_this_program(bench: Any, run: Run) -> None:
    """Each outcome is a text of JSON, under the name of its step; no class of ours, no user, no input."""

    async def main() -> dict[str, Any]:
        run_id = UUID(int=7)
        await bench.workflow(CHAIN).run(RunContext(run_id, "alice", {}, bench.steps))
        async with bench.checkpointer(run_id, None) as saver:
            found = await saver.aget_tuple({"configurable": {"thread_id": str(run_id)}})
        return {step: json.loads(text) for _, step, text in found.pending_writes}

    outcomes = run(main)
    assert outcomes["b"]["error"] == "away"
    assert {name: outcome["status"] for name, outcome in outcomes.items()} == {
        "a": "succeeded",
        "b": "failed",
        "c": "skipped",
        "d": "succeeded",
    }
