"""The contract analysis on a real PostgreSQL and the real parser: its result, its steps, and its second lives."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from threading import get_ident
from typing import Any
from uuid import UUID, uuid4

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection
from steps import Steps, WorkerDiedError

from workflow_service.domain.contract import Clause
from workflow_service.domain.document import MEDIA_TYPES, Document
from workflow_service.gateways.document_parser import DocumentParser
from workflow_service.ports import InvalidInputError, RunContext, UnreadableDocumentError, WorkflowError
from workflow_service.workflows.contract_analysis import ContractAnalysis
from workflow_service.workflows.engine.kept import Checkpointer

pytestmark = pytest.mark.needs("postgres")

STEPS = ["ingest", "segment", "extract", "assess", "report"]
USER = "alice"


class KeptDocuments:
    """A document store of one test, which counts how often a file is read."""

    def __init__(self) -> None:
        self.reads = 0
        self._kept: dict[tuple[str, UUID], tuple[Document, bytes]] = {}

    async def save(self, user_id: str, filename: str, media_type: str, content: bytes) -> Document:
        document = Document(
            uuid4(), user_id, filename, media_type, len(content), sha256(content).hexdigest(), datetime.now(UTC)
        )
        self._kept[user_id, document.id] = document, content
        return document

    async def get(self, user_id: str, document_id: UUID) -> Document | None:
        found = self._kept.get((user_id, document_id))
        return found[0] if found else None

    async def content(self, user_id: str, document_id: UUID) -> bytes | None:
        self.reads += 1
        found = self._kept.get((user_id, document_id))
        return found[1] if found else None


@pytest.fixture
def checkpointer(empty_database: str) -> Checkpointer:
    """Lends a new saver on a new connection each time, as a new process would."""

    async def set_up() -> None:  # once, as a deployment does: two at a time fail on the same tables
        async with AsyncPostgresSaver.from_conn_string(empty_database) as saver:
            await saver.setup()

    @asynccontextmanager
    async def lend(_run_id: UUID, _attempt: int | None) -> AsyncIterator[BaseCheckpointSaver[Any]]:
        async with AsyncPostgresSaver.from_conn_string(empty_database) as saver:
            yield saver

    asyncio.run(set_up())
    return lend


@pytest.fixture
def documents() -> KeptDocuments:
    """An empty document store."""
    return KeptDocuments()


@pytest.fixture
def workflow(documents: KeptDocuments, checkpointer: Checkpointer) -> Callable[[], ContractAnalysis]:
    """Makes a workflow as a new worker process would."""
    return lambda: ContractAnalysis(documents, DocumentParser(timeout=30, memory_bytes=1024**3), checkpointer)


async def upload(documents: KeptDocuments, name: str) -> dict[str, str]:
    """Keep a sample contract and return the input that names it."""
    content = (files("workflow_service") / "samples" / name).read_bytes()
    document = await documents.save(USER, name, MEDIA_TYPES["." + name.rpartition(".")[2]], content)
    return {"document_id": str(document.id)}


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "pages", "parties", "law"),
    [
        ("mutual-nda.pdf", 3, ["Halden Robotics, Inc.", "Brightwater Analytics Ltd"], "Delaware"),
        (
            "services-agreement.docx",
            1,
            ["Cedar Valley Health Partners LLC", "Lindqvist & Moreau Consulting GmbH"],
            "New York",
        ),
    ],
)
def test_a_contract_is_analysed_in_five_steps(
    documents: KeptDocuments,
    workflow: Callable[[], ContractAnalysis],
    name: str,
    pages: int,
    parties: list[str],
    law: str,
) -> None:
    """The result is JSON and names what matters; each step is told once, with figures, after its work."""

    async def main() -> None:
        chosen, steps = await upload(documents, name), Steps()
        result = await workflow().run(RunContext(uuid4(), USER, chosen, steps))
        assert json.loads(json.dumps(result)) == result
        assert result["document"]["id"] == chosen["document_id"]
        assert result["document"]["filename"] == name
        assert len(result["document"]["pages"]) == pages
        assert [party["name"] for party in result["summary"]["parties"]] == parties
        assert result["summary"]["governing_law"] == law
        for finding in result["findings"]:
            start, end = finding["span"]
            assert result["text"][start:end] == finding["quote"]
        assert [(step, percent) for step, percent, _ in steps.told] == list(
            zip(STEPS, (20, 40, 60, 80, 100), strict=True)
        )
        read = f"{pages} page{'s' * (pages > 1)}, {len(result['text']):,} characters"
        assert steps.told[0][2] == f"read {read}"
        assert steps.told[1][2] == f"found {len(result['clauses'])} clauses"

    run(main)


def test_a_text_of_headings_is_worked_on_beside_the_loop(
    documents: KeptDocuments, workflow: Callable[[], ContractAnalysis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clauses become JSON, and come from it, on threads: the loop renews the leases of other runs meanwhile."""
    on: list[int] = []

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            on.append(get_ident())
            return method(*args)

        return noted

    monkeypatch.setattr(Clause, "to_json", noting(Clause.to_json))
    monkeypatch.setattr(Clause, "from_json", staticmethod(noting(Clause.from_json)))

    async def main() -> None:
        text = "# a\n" * 500
        document = await documents.save(USER, "headings.md", "text/markdown", text.encode())
        result = await workflow().run(RunContext(uuid4(), USER, {"document_id": str(document.id)}, Steps()))
        assert len(result["clauses"]) == 500
        assert len(on) == 500 * 5  # made by one step and by the report, read by three
        assert get_ident() not in on

    run(main)


@pytest.mark.parametrize("die_at", STEPS)
def test_a_run_goes_on_where_its_worker_died(
    documents: KeptDocuments, workflow: Callable[[], ContractAnalysis], die_at: str
) -> None:
    """A new worker does only the steps that are not kept, and its result is that of an undisturbed run."""

    async def main() -> None:
        chosen, run_id = await upload(documents, "mutual-nda.pdf"), uuid4()
        first, second = Steps(die_at), Steps()
        with pytest.raises(WorkerDiedError):
            await workflow().run(RunContext(run_id, USER, chosen, first))
        result = await workflow().run(RunContext(run_id, USER, chosen, second))
        assert first.names == STEPS[: STEPS.index(die_at)]
        assert second.names == STEPS[STEPS.index(die_at) :]
        assert documents.reads == (2 if die_at == "ingest" else 1)
        assert result == await workflow().run(RunContext(uuid4(), USER, chosen, Steps()))

    run(main)


CUT_WRITES = """
DELETE FROM checkpoint_writes USING checkpoints
WHERE checkpoint_writes.thread_id = %(run_id)s AND checkpoints.thread_id = %(run_id)s
  AND checkpoint_writes.checkpoint_id = checkpoints.checkpoint_id
  AND (checkpoints.metadata->>'step')::int >= %(step)s + %(keep_writes)s::int
"""
CUT_CHECKPOINTS = "DELETE FROM checkpoints WHERE thread_id = %(run_id)s AND (metadata->>'step')::int > %(step)s"


async def cut(url: str, run_id: UUID, step: int, keep_writes: bool) -> None:
    """Take away what was kept after the checkpoint ``step``, and what its tasks wrote unless ``keep_writes``."""
    values = {"run_id": str(run_id), "step": step, "keep_writes": keep_writes}
    async with await AsyncConnection.connect(url) as connection:
        await connection.execute(CUT_WRITES, values)
        await connection.execute(CUT_CHECKPOINTS, values)


@pytest.mark.parametrize("keep_writes", [True, False])
@pytest.mark.parametrize("step", range(-1, len(STEPS)))
def test_a_run_goes_on_from_every_state_that_a_kill_can_leave(
    documents: KeptDocuments,
    workflow: Callable[[], ContractAnalysis],
    empty_database: str,
    step: int,
    keep_writes: bool,
) -> None:
    """Also between a step's writes and the next checkpoint: a step is done again only if its writes are gone."""

    async def main() -> None:
        chosen, run_id, second = await upload(documents, "mutual-nda.pdf"), uuid4(), Steps()
        result = await workflow().run(RunContext(run_id, USER, chosen, Steps()))
        await cut(empty_database, run_id, step, keep_writes)
        assert await workflow().run(RunContext(run_id, USER, chosen, second)) == result
        assert second.names == STEPS[max(step + keep_writes, 0) :]

    run(main)


def test_a_finished_run_returns_its_result_again(
    documents: KeptDocuments, workflow: Callable[[], ContractAnalysis]
) -> None:
    """A worker that died after the last step and before it said so costs nothing twice."""

    async def main() -> None:
        chosen, run_id, again = await upload(documents, "mutual-nda.pdf"), uuid4(), Steps()
        result = await workflow().run(RunContext(run_id, USER, chosen, Steps()))
        assert await workflow().run(RunContext(run_id, USER, chosen, again)) == result
        assert again.told == []
        assert documents.reads == 1

    run(main)


def test_a_forgotten_run_leaves_no_row(
    documents: KeptDocuments, workflow: Callable[[], ContractAnalysis], checkpointer: Checkpointer
) -> None:
    """Nothing is kept of it, all is kept of another; to forget what is unknown is fine."""

    async def kept(run_id: UUID) -> int:
        async with checkpointer(run_id, None) as saver:
            return len([item async for item in saver.alist({"configurable": {"thread_id": str(run_id)}})])

    async def main() -> None:
        chosen, run_id, other = await upload(documents, "mutual-nda.pdf"), uuid4(), uuid4()
        for each in (run_id, other):
            await workflow().run(RunContext(each, USER, chosen, Steps()))
        for _ in range(2):
            await workflow().forget(run_id)
        assert await kept(run_id) == 0
        assert await kept(other) > len(STEPS)

    run(main)


def test_runs_on_one_workflow_do_not_mix(
    documents: KeptDocuments, workflow: Callable[[], ContractAnalysis]
) -> None:
    """Each of several runs at once has its own document, steps and result."""

    async def main() -> None:
        names = ["mutual-nda.pdf", "services-agreement.docx"]
        inputs = [await upload(documents, name) for name in names]
        reports = [Steps(), Steps()]
        shared = workflow()
        results = await asyncio.gather(
            *(
                shared.run(RunContext(uuid4(), USER, chosen, steps))
                for chosen, steps in zip(inputs, reports, strict=True)
            )
        )
        assert [result["document"]["filename"] for result in results] == names
        assert [steps.names for steps in reports] == [STEPS, STEPS]
        assert reports[0].told != reports[1].told

    run(main)


def test_checkpoints_hold_json_only(
    documents: KeptDocuments,
    workflow: Callable[[], ContractAnalysis],
    checkpointer: Checkpointer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is kept can be read without this program: no class of ours, no callable, no warning about types."""

    async def main() -> None:
        run_id = uuid4()
        await workflow().run(RunContext(run_id, USER, await upload(documents, "mutual-nda.pdf"), Steps()))
        async with checkpointer(run_id, None) as saver:
            kept = [item async for item in saver.alist({"configurable": {"thread_id": str(run_id)}})]
        assert len(kept) >= len(STEPS)
        for item in kept:
            values = item.checkpoint["channel_values"]
            assert json.loads(json.dumps(values)) == values
            assert "report" not in item.metadata

    with caplog.at_level(logging.WARNING):
        run(main)
    assert caplog.records == []


@pytest.mark.parametrize(
    "input_data",
    [{}, {"document_id": 5}, {"document_id": "x"}, {"document_id": str(UUID(int=1)), "more": 1}, {"id": "x"}],
)
def test_other_input_is_refused_with_an_example(
    workflow: Callable[[], ContractAnalysis], input_data: dict[str, object]
) -> None:
    """The message says what the input must be."""
    with pytest.raises(InvalidInputError, match=r'the input of contract_analysis is \{"document_id"'):
        workflow().check(input_data)


def test_a_document_of_another_user_does_not_exist(
    documents: KeptDocuments, workflow: Callable[[], ContractAnalysis]
) -> None:
    """A run sees its own user's documents only."""

    async def main() -> None:
        chosen = await upload(documents, "mutual-nda.pdf")
        with pytest.raises(WorkflowError, match=f"there is no document {chosen['document_id']}"):
            await workflow().run(RunContext(uuid4(), "mallory", chosen, Steps()))

    run(main)


def test_an_unreadable_document_fails_for_good(
    documents: KeptDocuments, workflow: Callable[[], ContractAnalysis]
) -> None:
    """The reason reaches the caller as it is, at the first try and at the next."""

    async def main() -> None:
        document = await documents.save(USER, "scan.pdf", MEDIA_TYPES[".pdf"], b"no pdf at all")
        chosen, run_id = {"document_id": str(document.id)}, uuid4()
        for _ in range(2):
            with pytest.raises(UnreadableDocumentError, match="damaged or incomplete"):
                await workflow().run(RunContext(run_id, USER, chosen, Steps()))

    run(main)
