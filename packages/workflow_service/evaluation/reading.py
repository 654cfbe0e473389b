"""Analyses a text as the service does: by rules, and with the language model that the environment names."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from uuid import UUID, uuid4

from workflow_service.domain.analysis import assess, extract, merge, segment, windows
from workflow_service.domain.contract import Clause, Finding
from workflow_service.domain.document import DocumentText, Page, Span
from workflow_service.domain.language_model import ModelUsage
from workflow_service.gateways.chat_client import open_chat_client, rate_limiter
from workflow_service.gateways.language_model import ChatLanguageModel
from workflow_service.gateways.model_setting import model_choice
from workflow_service.settings import Settings
from workflow_service.workflows.contract_reading import Contract, model_findings, read_windows


@dataclass(frozen=True, slots=True)
class ByRules:
    """A text and what the rules found in it."""

    document: DocumentText
    clauses: Sequence[Clause]
    findings: Sequence[Finding]


Reader = Callable[[ByRules], Awaitable[Sequence[Finding]]]
"""``await reader(by_rules(text))``: the findings of rules and model together."""


def by_rules(text: str) -> ByRules:
    """Analyse a text without a model."""
    document = DocumentText(text, (Page(1, Span(0, len(text))),))
    clauses = segment(text, document.pages)
    findings = [*extract(text, document.pages, clauses), *assess(text, document.pages, clauses)]
    return ByRules(document, clauses, sorted(findings, key=lambda finding: finding.span.start))


@asynccontextmanager
async def opened_reader() -> AsyncGenerator[tuple[str | None, Reader | None], None]:
    """Yield the name of the configured model and what reads with it; None, None without one."""
    settings = Settings(database_url="postgresql://nobody.is.asked", broker_url="memory://")
    choice = model_choice(settings)
    if choice is None:
        yield None, None
        return

    async def keep(_user_id: str, _run_id: UUID | None, _usage: ModelUsage) -> None:
        """Keep nothing: the provider's own bill is the record."""

    async with open_chat_client(choice, rate_limiter(choice)) as client:
        model = ChatLanguageModel(choice, lambda: nullcontext(client), keep)

        async def read(found: ByRules) -> Sequence[Finding]:
            contract = Contract("evaluation", uuid4(), found.document, found.clauses, found.findings)
            ahead = windows(found.document.text, found.clauses, settings.analysis_window_chars)
            done = []
            while len(done) < len(ahead):
                done += await read_windows(model, contract, ahead[len(done) :])
            return merge(found.findings, model_findings(done))

        yield choice.name, read
