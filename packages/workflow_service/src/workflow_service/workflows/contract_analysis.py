"""The contract analysis: from an uploaded document to what its contract says and what is risky in it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphDrained
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import RunControl

from workflow_service.domain.analysis import assess, extract, merge, segment, windows
from workflow_service.domain.contract import Clause, ContractReport, Finding, FindingKind, Severity
from workflow_service.domain.document import DocumentText, Page, Span
from workflow_service.domain.run import JsonObject
from workflow_service.ports import (
    DocumentParser,
    DocumentStore,
    DrainedError,
    InvalidInputError,
    LanguageModel,
    Report,
    RunContext,
    WorkflowError,
)
from workflow_service.workflows.contract_reading import (
    Contract,
    ModelReading,
    model_findings,
    read_windows,
    reading_report,
)
from workflow_service.workflows.engine.kept import Checkpointer

_REPORT = "report"  # the key, in a run's configuration, of what tells the steps; it never enters the state
_RESULT = "result"  # the key, in the state, of what a run returns; its last step sets it

_DOCUMENT: JsonObject = {
    "type": "string",
    "format": "document-id",
    "title": "Contract",
    "description": "An uploaded PDF, DOCX, Markdown or text file.",
}


class AnalysisInput(TypedDict):
    """What a run begins with."""

    document_id: str
    user_id: str
    with_model: NotRequired[bool]


class AnalysisState(AnalysisInput):
    """What is kept between the steps: JSON values only, so that any checkpoint store and version can read it."""

    windows: list[list[int]]
    read: list[JsonObject]
    filename: str
    text: str
    pages: list[list[int]]
    clauses: list[JsonObject]
    findings: list[JsonObject]
    risks: list[JsonObject]
    result: JsonObject


Update = dict[str, Any]  # Any: a part of AnalysisState, which TypedDict cannot say
Graph = StateGraph[AnalysisState, None, AnalysisInput, AnalysisState]


class ContractAnalysis:
    """A LangGraph workflow in five steps, each kept before the next begins; a sixth is a language model's reading.

    Args:
        documents: Where uploaded files are.
        parser: Turns a file into text.
        checkpointer: Lends the savers of runs.
        model: Reads beside the rules in runs that ask for it; None: there is none to ask.
        reading: Whether it reads where a run does not say, and how much.
    """

    name = "contract_analysis"
    description = (
        "Reads a contract and lists its parties, dates, term, governing law, money, obligations and risky "
        "clauses, each with its place in the text."
    )

    def __init__(
        self,
        documents: DocumentStore,
        parser: DocumentParser,
        checkpointer: Checkpointer,
        model: LanguageModel | None = None,
        reading: ModelReading | None = None,
    ) -> None:
        self._documents = documents
        self._parser = parser
        self._checkpointer = checkpointer
        self._model = model
        self._reading = reading or ModelReading()
        self._graph = self._build()

    @property
    def input_schema(self) -> JsonObject:
        """The document, and whether the model reads too where there is one."""
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

    def check(self, input_data: JsonObject) -> None:
        """Raise InvalidInputError unless the input names a document, and a model only if there is one."""
        _document_id(input_data)
        self._with_model(input_data)

    async def run(self, context: RunContext) -> JsonObject:
        """Run the steps that are not done yet, and return the result.

        A run that is finished returns its result again; a run whose worker died goes on after its last step.

        Raises:
            InvalidInputError: The input is not what `check` accepts.
            WorkflowError: The document does not exist, or cannot be read; the model refused.
            ModelUnavailableError: The model did not answer; another attempt goes on behind the last window read.
            StoreUnavailableError: The database did not answer; another attempt goes on.
            ClaimLostError: The attempt holds the run no longer.
            DrainedError: It was asked to end between two steps, and has.
        """
        document_id = _document_id(context.input_data)
        config: RunnableConfig = {"configurable": {"thread_id": str(context.run_id), _REPORT: context.report}}
        async with self._checkpointer(context.run_id, context.attempt) as saver:
            graph = self._graph.compile(checkpointer=saver)
            kept = await graph.aget_state(config)
            # Not «kept.next is empty»: that is so, too, when the worker died between the writes of a step and
            # the checkpoint that takes them up.
            if _RESULT in kept.values:
                return _result(kept.values)
            start: AnalysisInput | None = None  # go on where the checkpoint is; any input would begin anew
            if kept.created_at is None:
                start = {
                    "document_id": str(document_id),
                    "user_id": context.user_id,
                    "with_model": self._with_model(context.input_data),
                }
            control = RunControl()
            context.drain.on_request(control.request_drain)
            try:
                return _result(await graph.ainvoke(start, config, durability="sync", control=control))
            except GraphDrained as drained:
                raise DrainedError("ended between two steps") from drained

    async def forget(self, run_id: UUID) -> None:
        """Remove the run's checkpoints; a run that has none is fine. Raises StoreUnavailableError."""
        async with self._checkpointer(run_id, None) as saver:
            await saver.adelete_thread(str(run_id))

    def _build(self) -> Graph:
        graph: Graph = StateGraph(AnalysisState, input_schema=AnalysisInput)
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
        user_id, document_id = state["user_id"], UUID(state["document_id"])
        record = await self._documents.get(user_id, document_id)
        content = await self._documents.content(user_id, document_id)
        if record is None or content is None:
            raise WorkflowError(f"there is no document {document_id}; upload it again and start a new analysis")
        document = await self._parser.parse(content, record.media_type)
        pages = [[page.span.start, page.span.end] for page in document.pages]
        read = f"{_counted(len(pages), 'page')}, {_counted(len(document.text), 'character')}"
        await _tell(config, "ingest", 20, f"read {read}")
        return {"filename": record.filename, "text": document.text, "pages": pages}

    def _with_model(self, input_data: JsonObject) -> bool:
        said = input_data.get("with_model")
        if said is not None and not isinstance(said, bool):
            raise InvalidInputError(f"with_model is true or false, got {said!r}")
        if said and self._model is None:
            raise InvalidInputError(
                "with_model asks for a language model, and none is configured; set WORKFLOW_MODEL to provider:name"
            )
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
        contract = Contract(state["user_id"], run_id, _document(state), clauses, parties)
        now = [*read, *await read_windows(model, contract, all_windows[len(read) :])]
        done, total = len(now), len(all_windows)
        believed = sum(len(window["findings"]) for window in now)
        description = f"{model.name} read {done} of {_counted(total, 'part')}, {_counted(believed, 'finding')}"
        await _tell(config, f"consult {done} of {total}", 80 + 15 * done // total, description)
        return {"read": now, "windows": [[window.start, window.end] for window in all_windows]}

    async def _report(self, state: AnalysisState, config: RunnableConfig) -> Update:
        contract, result = await asyncio.to_thread(self._reported, state)
        figures = f"{_counted(len(contract.findings), 'finding')} in {_counted(len(contract.clauses), 'clause')}"
        await _tell(config, "report", 100, f"reported {figures}")
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
    await _tell(config, "segment", 40, f"found {_counted(len(clauses), 'clause')}")
    return {"clauses": clauses}


async def _extract(state: AnalysisState, config: RunnableConfig) -> Update:
    findings = await asyncio.to_thread(_found_by, extract, state)
    obligations = sum(finding["kind"] == FindingKind.OBLIGATION for finding in findings)
    facts = len(findings) - obligations
    figures = f"{_counted(facts, 'fact')} and {_counted(obligations, 'obligation')}"
    await _tell(config, "extract", 60, f"found {figures}")
    return {"findings": findings}


async def _assess(state: AnalysisState, config: RunnableConfig) -> Update:
    risks = await asyncio.to_thread(_found_by, assess, state)
    grave = sum(risk["severity"] == Severity.HIGH for risk in risks)
    await _tell(config, "assess", 80, f"found {_counted(len(risks), 'risk')}, {grave} of high severity")
    return {"risks": risks}


def _segmented(state: AnalysisState) -> list[JsonObject]:
    document = _document(state)
    return [clause.to_json() for clause in segment(document.text, document.pages)]


def _found_by(
    reader: Callable[[str, Sequence[Page], Sequence[Clause]], Sequence[Finding]], state: AnalysisState
) -> list[JsonObject]:
    document = _document(state)
    return [finding.to_json() for finding in reader(document.text, document.pages, _clauses(state))]


async def _tell(config: RunnableConfig, step: str, percent: int, description: str) -> None:
    report: Report = config.get("configurable", {})[_REPORT]
    await report(step, percent, description)


def _document_id(input_data: Mapping[str, Any]) -> UUID:
    example = 'the input of contract_analysis is {"document_id": "<id of an uploaded document>"}'
    if not {"document_id"} <= set(input_data) <= {"document_id", "with_model"}:
        raise InvalidInputError(f"{example}, got the keys {sorted(map(str, input_data))}")
    value = input_data["document_id"]
    try:
        if not isinstance(value, str):
            raise ValueError
        return UUID(value)
    except ValueError:
        raise InvalidInputError(f"{example}; {value!r} is not the id of a document") from None


def _document(state: AnalysisState) -> DocumentText:
    pages = (Page(number, Span(start, end)) for number, (start, end) in enumerate(state["pages"], start=1))
    return DocumentText(state["text"], tuple(pages))


def _findings(state: AnalysisState) -> list[Finding]:
    return [Finding.from_json(finding) for finding in (*state["findings"], *state["risks"])]


def _clauses(state: AnalysisState) -> list[Clause]:
    return [Clause.from_json(clause) for clause in state["clauses"]]


def _result(values: Mapping[str, Any]) -> JsonObject:
    result: JsonObject = values[_RESULT]
    return result


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
