"""The contract analysis: from an uploaded document to what its contract says and what is risky in it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NotRequired, TypedDict
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from workflow_service.domain.analysis import assess, extract, merge, segment, windows
from workflow_service.domain.contract import Clause, ContractReport, Finding, FindingKind, Severity
from workflow_service.domain.document import DocumentText, Page, Span
from workflow_service.domain.run import JsonObject
from workflow_service.ports import InvalidInputError, WorkflowError
from workflow_service.workflows.contract_reading import (
    Contract,
    ModelReading,
    model_findings,
    read_windows,
    reading_report,
)
from workflow_service.workflows.engine.schemas import check_input
from workflow_service.workflows.graphs import GraphWorkflow, report, user_of
from workflow_service.workflows.plugins import WorkflowTools

_DOCUMENT: JsonObject = {
    "type": "string",
    "format": "document-id",
    "title": "Contract",
    "description": "An uploaded PDF, DOCX, Markdown or text file.",
}
_INPUT: JsonObject = {  # whether there is a model to ask is looked at apart: that it is not has advice of its own
    "type": "object",
    "properties": {"document_id": _DOCUMENT, "with_model": {"type": ["boolean", "null"]}},
    "required": ["document_id"],
    "additionalProperties": False,
}


class AnalysisInput(TypedDict):
    """What a run begins with."""

    document_id: str
    with_model: NotRequired[bool]


class AnalysisOutput(TypedDict):
    """What a run gives."""

    result: JsonObject


class AnalysisState(AnalysisInput, AnalysisOutput):
    """What is kept between the steps: JSON values only, so that any checkpoint store and version can read it."""

    windows: list[list[int]]
    read: list[JsonObject]
    filename: str
    text: str
    pages: list[list[int]]
    clauses: list[JsonObject]
    findings: list[JsonObject]
    risks: list[JsonObject]


Update = dict[str, Any]  # Any: a part of AnalysisState, which TypedDict cannot say
Graph = StateGraph[AnalysisState, None, AnalysisInput, AnalysisOutput]


def contract_analysis(tools: WorkflowTools, reading: ModelReading | None = None) -> GraphWorkflow:
    """Make the workflow: a graph of five steps; a sixth is a language model's reading.

    Args:
        tools: Where files are and what reads them; its model reads beside the rules in runs that ask for it.
        reading: Whether the model reads where a run does not say, and how much.
    """
    steps = _Steps(tools, reading or ModelReading())
    return GraphWorkflow(
        name="contract_analysis",
        description=(
            "Reads a contract and lists its parties, dates, term, governing law, money, obligations and risky "
            "clauses, each with its place in the text."
        ),
        input_schema=steps.input_schema(),
        graph=steps.graph(),
        checkpointer=tools.checkpointer,
        begin=steps.begin,
        result="result",
    )


class _Steps:
    """What the nodes do."""

    def __init__(self, tools: WorkflowTools, reading: ModelReading) -> None:
        self._documents = tools.documents
        self._parser = tools.parser
        self._model = tools.model
        self._reading = reading

    def input_schema(self) -> JsonObject:
        """Return that of the document, and whether the model reads too where there is one."""
        properties = {"document_id": _DOCUMENT}
        if self._model is not None:
            properties["with_model"] = {
                "type": "boolean",
                "title": "Let the language model read too",
                "description": f"Sends the contract to {self._model.name}. What it finds is checked in the text.",
                "default": self._reading.with_model,
            }
        return {
            "type": "object",
            "properties": properties,
            "required": ["document_id"],
            "additionalProperties": False,
        }

    def begin(self, input_data: JsonObject) -> AnalysisInput:
        """Return what a run begins with: whether the model reads is decided here, and holds however it goes on.

        Raises:
            InvalidInputError: The input names no document, or asks for a model and there is none.
        """
        check_input(_INPUT, input_data)
        if input_data.get("with_model") and self._model is None:
            fault = "asks for a language model, and none is configured; set WORKFLOW_MODEL to provider:name"
            raise InvalidInputError(f"with_model {fault}", [("input_data.with_model", fault)])
        return {"document_id": input_data["document_id"], "with_model": self._with_model(input_data)}

    def graph(self) -> Graph:
        """Return the graph."""
        graph: Graph = StateGraph(AnalysisState, input_schema=AnalysisInput, output_schema=AnalysisOutput)
        graph.add_node("ingest", self._ingest)
        graph.add_node("segment", _segment)
        graph.add_node("extract", _extract)
        graph.add_node("assess", _assess)
        graph.add_node("consult", self._consult)
        graph.add_node("report", self._report)
        graph.add_edge(START, "ingest")
        graph.add_edge("ingest", "segment")
        graph.add_edge("segment", "extract")
        graph.add_edge("extract", "assess")
        graph.add_conditional_edges("assess", self._after_rules, ["consult", "report"])
        graph.add_conditional_edges("consult", self._after_rules, ["consult", "report"])
        graph.add_edge("report", END)
        return graph

    async def _ingest(self, state: AnalysisState, config: RunnableConfig) -> Update:
        user_id, document_id = user_of(config), UUID(state["document_id"])
        record = await self._documents.get(user_id, document_id)
        content = await self._documents.content(user_id, document_id)
        if record is None or content is None:
            raise WorkflowError(f"there is no document {document_id}; upload it again and start a new analysis")
        document = await self._parser.parse(content, record.media_type)
        pages = [[page.span.start, page.span.end] for page in document.pages]
        read = f"{_counted(len(pages), 'page')}, {_counted(len(document.text), 'character')}"
        await report(config, "ingest", 20, f"read {read}")
        return {"filename": record.filename, "text": document.text, "pages": pages}

    def _with_model(self, input_data: JsonObject) -> bool:
        said: bool | None = input_data.get("with_model")
        return self._model is not None and (self._reading.with_model if said is None else said)

    def _windows(self, state: AnalysisState) -> tuple[Span, ...]:
        """Return what the model reads: as it was decided when it began, should settings change meanwhile."""
        if not state.get("with_model"):
            return ()
        if self._model is None:
            raise WorkflowError("the run asks for a language model, and this worker has none; set WORKFLOW_MODEL")
        if decided := state.get("windows"):
            return tuple(Span(start, end) for start, end in decided)
        found = windows(state["text"], _clauses(state), self._reading.window_chars)
        return found[: self._reading.most_windows]

    def _after_rules(self, state: AnalysisState) -> str:
        return "consult" if len(state.get("read", [])) < len(self._windows(state)) else "report"

    async def _consult(self, state: AnalysisState, config: RunnableConfig) -> Update:
        """Let the model read the next windows; what it read before a worker died is not read again."""
        all_windows, read = await asyncio.to_thread(self._windows, state), state.get("read", [])
        model = self._model
        assert model is not None  # else there were no windows, or an error
        clauses, findings = await asyncio.to_thread(lambda: (_clauses(state), _findings(state)))
        parties = [finding for finding in findings if finding.kind is FindingKind.PARTY]
        run_id = UUID(config.get("configurable", {})["thread_id"])
        contract = Contract(user_of(config), run_id, _document(state), clauses, parties)
        now = [*read, *await read_windows(model, contract, all_windows[len(read) :])]
        done, total = len(now), len(all_windows)
        believed = sum(len(window["findings"]) for window in now)
        description = f"{model.name} read {done} of {_counted(total, 'part')}, {_counted(believed, 'finding')}"
        await report(config, f"consult {done} of {total}", 80 + 15 * done // total, description)
        return {"read": now, "windows": [[window.start, window.end] for window in all_windows]}

    async def _report(self, state: AnalysisState, config: RunnableConfig) -> Update:
        contract, result = await asyncio.to_thread(self._reported, state)
        figures = f"{_counted(len(contract.findings), 'finding')} in {_counted(len(contract.clauses), 'clause')}"
        await report(config, "report", 100, f"reported {figures}")
        return {"result": result}

    def _reported(self, state: AnalysisState) -> tuple[ContractReport, JsonObject]:
        by_rules, read = _findings(state), state.get("read", [])
        by_rules.sort(key=lambda finding: finding.span.start)
        findings = merge(by_rules, model_findings(read)) if read else tuple(by_rules)
        contract = ContractReport(tuple(_clauses(state)), findings)
        result: dict[str, Any] = {
            "document": {"id": state["document_id"], "filename": state["filename"], "pages": state["pages"]},
            "text": state["text"],
            **contract.to_json(),
        }
        if read:
            result["model"] = reading_report(read, self._windows(state), findings, state["text"])
        return contract, result


# The steps from here on are pure functions of the state. They take milliseconds on a contract and seconds on the
# largest text that is accepted, as does making objects of what is kept, and what is kept of objects: so all of it
# runs on a thread, and not on the loop that other runs, and the renewals of leases, share.


async def _segment(state: AnalysisState, config: RunnableConfig) -> Update:
    clauses = await asyncio.to_thread(_segmented, state)
    await report(config, "segment", 40, f"found {_counted(len(clauses), 'clause')}")
    return {"clauses": clauses}


async def _extract(state: AnalysisState, config: RunnableConfig) -> Update:
    findings = await asyncio.to_thread(_found_by, extract, state)
    obligations = sum(finding["kind"] == FindingKind.OBLIGATION for finding in findings)
    facts = len(findings) - obligations
    figures = f"{_counted(facts, 'fact')} and {_counted(obligations, 'obligation')}"
    await report(config, "extract", 60, f"found {figures}")
    return {"findings": findings}


async def _assess(state: AnalysisState, config: RunnableConfig) -> Update:
    risks = await asyncio.to_thread(_found_by, assess, state)
    grave = sum(risk["severity"] == Severity.HIGH for risk in risks)
    await report(config, "assess", 80, f"found {_counted(len(risks), 'risk')}, {grave} of high severity")
    return {"risks": risks}


def _segmented(state: AnalysisState) -> list[JsonObject]:
    document = _document(state)
    return [clause.to_json() for clause in segment(document.text, document.pages)]


def _found_by(
    reader: Callable[[str, Sequence[Page], Sequence[Clause]], Sequence[Finding]], state: AnalysisState
) -> list[JsonObject]:
    document = _document(state)
    return [finding.to_json() for finding in reader(document.text, document.pages, _clauses(state))]


def _document(state: AnalysisState) -> DocumentText:
    pages = (Page(number, Span(start, end)) for number, (start, end) in enumerate(state["pages"], start=1))
    return DocumentText(state["text"], tuple(pages))


def _findings(state: AnalysisState) -> list[Finding]:
    return [Finding.from_json(finding) for finding in (*state["findings"], *state["risks"])]


def _clauses(state: AnalysisState) -> list[Clause]:
    return [Clause.from_json(clause) for clause in state["clauses"]]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
