"""A contract analysis that a language model reads beside the rules: a real graph, a real HTTP server."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from steps import WorkerDiedError

from workflow_service.domain.document import Document, DocumentText, Page, Span
from workflow_service.gateways.language_model import ChatLanguageModel
from workflow_service.ports import InvalidInputError, ModelUnavailableError, RunContext, WorkflowError
from workflow_service.testing.model_server import ModelServer
from workflow_service.workflows.contract_analysis import ContractAnalysis
from workflow_service.workflows.contract_reading import ModelReading

Ask = Callable[..., Any]
CLAUSE = """
{n}. Matter {n}
The Buyer shall pay USD {n},000 on March {n}, 2025. The Seller may audit book {n} without notice.
Seller must keep copy {n} of all records safe.
"""
TEXT = "SUPPLY AGREEMENT between Oak Tools Ltd (the “Seller”) and Elm GmbH (the “Buyer”).\n" + "".join(
    CLAUSE.format(n=n) for n in range(1, 10)
)
INPUT = {"document_id": str(UUID(int=1)), "with_model": True}
READING = ModelReading(window_chars=240)
WINDOWS = 9  # the opening goes with the first clause


class OneDocument:
    """Fits DocumentStore and DocumentParser: every user has the same document."""

    async def get(self, user_id: str, document_id: UUID) -> Document:
        return Document(document_id, user_id, "supply.txt", "text/plain", len(TEXT), "", datetime.now(UTC))

    async def content(self, user_id: str, document_id: UUID) -> bytes:
        return b""

    async def parse(self, content: bytes, media_type: str) -> DocumentText:
        return DocumentText(TEXT, (Page(1, Span(0, len(TEXT))),))


class Steps:
    """Writes down the steps it is told, and dies at one of them as a killed worker does."""

    def __init__(self, die_at: str | None = None) -> None:
        self.told: list[tuple[str, int]] = []
        self.words: list[str] = []
        self._die_at = die_at

    async def __call__(self, step: str, percent: int, description: str) -> None:
        if step == self._die_at:
            raise WorkerDiedError
        self.told.append((step, percent))
        self.words.append(description)


class Analysis:
    """One workflow with its checkpoints; a run of it may be repeated, as by another worker."""

    def __init__(self, model: ChatLanguageModel | None, reading: ModelReading = READING) -> None:
        document = OneDocument()
        saver = InMemorySaver()

        @asynccontextmanager
        async def checkpointer(_run_id: UUID, _attempt: int | None) -> Any:
            yield saver

        self.workflow = ContractAnalysis(document, document, checkpointer, model, reading)
        self.run_id = uuid4()

    async def run(self, steps: Steps | None = None, chosen: Any = INPUT) -> Any:
        self.workflow.check(chosen)
        return await self.workflow.run(RunContext(self.run_id, "alice", chosen, steps or Steps()))


def analyse(ask: Ask, reading: ModelReading = READING, chosen: Any = INPUT) -> Any:
    return ask(lambda model: Analysis(model, reading).run(chosen=chosen))


def test_the_model_confirms_and_adds_and_is_paid_for(ask: Ask, server: ModelServer, ledger: Any) -> None:
    """Each finding says who made it, each quote stands in the text, and the result says what it took."""
    result = analyse(ask)
    findings = result["findings"]
    assert all(result["text"][slice(*finding["span"])] == finding["quote"] for finding in findings)
    added = {(finding["kind"], finding["label"]) for finding in findings if finding["source"] == "model"}
    assert added == {("risk", "audit without notice")}
    parties = [finding["source"] for finding in findings if finding["kind"] == "party"]
    assert parties == ["both", "both"]
    model = result["model"]
    assert (model["windows"], model["chars"], model["chars_not_read"]) == (WINDOWS, len(TEXT), 0)
    assert model["added"] == 9
    assert model["confirmed"] == sum(finding["source"] == "both" for finding in findings) > 9
    assert model["dropped"] == {}
    assert model["usage"]["input_tokens"] == sum(usage.input_tokens for _, _, usage in ledger.entries)
    assert model["usage"]["cost"] == pytest.approx(sum(usage.cost for _, _, usage in ledger.entries))
    assert len({run_id for _, run_id, _ in ledger.entries}) == 1


def test_what_the_model_invents_is_dropped_and_counted(ask: Ask, server: ModelServer) -> None:
    """No invention is among the findings, and the result says how many there were."""
    honest = analyse(ask)
    server.inventions = 2
    result = analyse(ask)
    assert result["findings"] == honest["findings"]
    assert result["model"]["dropped"] == {"quote_not_in_text": 2 * WINDOWS}


def test_a_run_without_the_model_is_what_it_was(ask: Ask, server: ModelServer) -> None:
    """The same result with a model that is not asked as without one; nothing is sent."""
    alone = asyncio.run(Analysis(None).run(chosen={"document_id": INPUT["document_id"]}))
    assert "model" not in alone
    assert {finding["source"] for finding in alone["findings"]} == {"rules"}
    assert analyse(ask, chosen={**INPUT, "with_model": False}) == alone
    assert analyse(ask, chosen={"document_id": INPUT["document_id"]}) == alone
    assert server.calls == []


def test_the_setting_decides_where_the_input_does_not(ask: Ask, server: ModelServer) -> None:
    """An operator may let the model read every contract."""
    always = ModelReading(with_model=True, window_chars=240)
    assert "model" in analyse(ask, always, {"document_id": INPUT["document_id"]})
    assert "model" not in analyse(ask, always, {**INPUT, "with_model": False})


def test_the_parts_are_told_one_after_the_other(ask: Ask) -> None:
    """Progress grows with what was read."""
    steps = Steps()
    ask(lambda model: Analysis(model).run(steps))
    assert steps.told[3:] == [
        ("assess", 80),
        ("consult 4 of 9", 86),
        ("consult 8 of 9", 93),
        ("consult 9 of 9", 95),
        ("report", 100),
    ]
    assert steps.words[4].startswith("openai:reader read 4 of 9 parts, ")


def test_what_was_read_before_a_worker_died_is_not_paid_for_again(ask: Ask, server: ModelServer) -> None:
    """The next worker goes on behind the last part that is kept, and the result is the same."""

    async def twice(model: ChatLanguageModel) -> Any:
        analysis = Analysis(model)
        with pytest.raises(WorkerDiedError):
            await analysis.run(Steps("consult 8 of 9"))
        assert len(server.calls) == 8
        result = await analysis.run()
        assert len(server.calls) == 8 + 5
        return result

    assert ask(twice) == analyse(ask)


def test_a_model_that_does_not_answer_fails_the_run_and_not_what_was_read(ask: Ask, server: ModelServer) -> None:
    """The error says that later may help; then it goes on."""

    async def twice(model: ChatLanguageModel) -> Any:
        analysis = Analysis(model)
        server.add_fault("server_error", 100)
        with pytest.raises(ModelUnavailableError, match="try again later"):
            await analysis.run()
        server.end_faults()
        return await analysis.run()

    assert ask(twice)["model"]["windows"] == WINDOWS


def test_a_contract_that_is_too_long_is_read_in_part_and_says_so(ask: Ask, server: ModelServer) -> None:
    """The rules read all of it, the model as much as it may."""
    result = analyse(ask, ModelReading(window_chars=240, most_windows=3))
    assert len(server.calls) == result["model"]["windows"] == 3
    assert result["model"]["chars"] + result["model"]["chars_not_read"] == len(TEXT)
    assert max(finding["span"][1] for finding in result["findings"]) > len(TEXT) - 100


def test_the_form_asks_for_the_model_only_where_there_is_one(ask: Ask) -> None:
    """The schema is what a page makes its form of."""

    async def schema(model: ChatLanguageModel) -> Any:
        return Analysis(model).workflow.input_schema

    field = ask(schema)["properties"]["with_model"]
    assert (field["type"], field["default"]) == ("boolean", False)
    assert "openai:reader" in field["description"]
    assert set(Analysis(None).workflow.input_schema["properties"]) == {"document_id"}


@pytest.mark.parametrize(
    ("with_model", "said"), [(True, "none is configured; set WORKFLOW_MODEL"), ("yes", "true or false, got 'yes'")]
)
def test_a_model_that_is_not_there_cannot_be_asked_for(with_model: Any, said: str) -> None:
    """Refused before the run is committed."""
    with pytest.raises(InvalidInputError, match=said):
        Analysis(None).workflow.check({**INPUT, "with_model": with_model})


def test_a_worker_without_the_model_does_not_end_a_run_that_asked_for_it(ask: Ask) -> None:
    """It would be a result without the model's part, and nobody would know."""

    async def main(model: ChatLanguageModel) -> None:
        analysis = Analysis(model)
        with pytest.raises(WorkerDiedError):
            await analysis.run(Steps("consult 4 of 9"))
        analysis.workflow._model = None
        with pytest.raises(WorkflowError, match="this worker has none"):
            await analysis.workflow.run(
                RunContext(analysis.run_id, "alice", {**INPUT, "with_model": None}, Steps())
            )

    ask(main)
