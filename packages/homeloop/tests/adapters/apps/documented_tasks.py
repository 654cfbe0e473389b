"""
The Celery samples of the source documents, as written there but for the import lines.

What the samples use and do not show (the service behind them, its tables) is below them.
"""

import asyncio
import os
from typing import TypedDict

from celery import Celery
from langgraph.graph import END, START, StateGraph

from homeloop.adapters.celery import carry_users, install, user_aware_task
from homeloop.adapters.celery.recovery import PostgresStore, recover_tasks
from homeloop.async_utils import (
    AsyncContextManager,
    celery_async_task,
    ensure_async_pool_initialization,
    get_langgraph_manager,
    make_loop_consistent_callback,
)
from homeloop.database import get_service_connection, get_user_connection

celery_app = Celery("documented", broker=os.environ["SEED_BROKER"], backend=os.environ["SEED_BROKER"])
celery_app.conf.update(task_default_queue=os.environ["SEED_QUEUE"], task_publish_retry=False)
if os.environ.get("DOCUMENTED_INSTALL"):
    install(celery_app)
    recover_tasks(celery_app, PostgresStore(connect=get_service_connection), keys=[os.environ["SEED_KEYS"]])
carry_users([os.environ["SEED_KEYS"]])

# -- 000, "Celery Configuration Updates" ----------------------------------------------------------

celery_app.conf.update(
    # Event loop configuration for async tasks
    worker_pool="threads",  # Use thread pool instead of fork for better async support
    worker_max_tasks_per_child=100,  # Restart workers periodically to prevent memory leaks
)


# -- 000, "Basic Celery Async Task" ---------------------------------------------------------------


@celery_app.task(bind=True)
@user_aware_task
@celery_async_task
async def my_async_task(self, document_id: str, user_id: str):
    # Database operations are now safe
    async with get_user_connection() as conn:
        result = await conn.fetchrow("SELECT * FROM documents WHERE id = $1", document_id)

    # LangGraph workflows are now safe
    workflow = DocumentProcessingWorkflow()
    result = await workflow.process_document(document_id)

    return result  # noqa: RET504  # as written there


# -- 000, "For Existing Tasks", with "Manual Event Loop Management" for its body ------------------


@celery_app.task(bind=True)
@user_aware_task
@celery_async_task  # Add this line
async def my_task(self, document_id: str):
    async with AsyncContextManager():
        # Safe to perform async operations here
        await ensure_async_pool_initialization()

        # Database operations
        async with get_user_connection() as conn:
            await conn.execute("INSERT INTO documents (id, body) VALUES ($1, 'new')", document_id)


if os.environ.get("DOCUMENTED_INSTALL"):
    # -- 001, "Before (Problematic)" --------------------------------------------------------------

    @celery_app.task(name="before")
    async def comprehensive_document_analysis(analysis_id: str):
        async def persist_progress(step, percent, description):
            await update_analysis_progress(analysis_id, step, percent, description)

        result = await contract_service.start_analysis(
            progress_callback=persist_progress,
        )
        return result  # noqa: RET504  # its last line is not shown there

    before = comprehensive_document_analysis

    # -- 001, "After (Fixed)" ---------------------------------------------------------------------

    @celery_app.task
    @user_aware_task(recovery_enabled=True)
    async def comprehensive_document_analysis(analysis_id: str):
        async def persist_progress(step, percent, description):
            await update_analysis_progress(analysis_id, step, percent, description)

        # Create loop-consistent callback
        consistent_callback = make_loop_consistent_callback(persist_progress)

        # Execute in isolated context
        manager = get_langgraph_manager()
        async with manager.create_isolated_context(f"analysis_{analysis_id}") as context:  # noqa: F841
            result = await contract_service.start_analysis(
                progress_callback=consistent_callback,  # Protected from cross-loop issues
            )
        return result  # noqa: RET504


# -- what the samples do not show -----------------------------------------------------------------


class State(TypedDict, total=False):
    document_id: str
    body: str | None


class DocumentProcessingWorkflow:
    """A graph whose node asks the database as the user."""

    async def process_document(self, document_id: str) -> str | None:
        async def read(state: State) -> State:
            async with get_user_connection() as conn:
                return {
                    "body": await conn.fetchval("SELECT body FROM documents WHERE id = $1", state["document_id"])
                }

        graph = StateGraph(State)
        graph.add_node("read", read)
        graph.add_edge(START, "read")
        graph.add_edge("read", END)
        return (await graph.compile().ainvoke({"document_id": document_id}))["body"]


class ContractService:
    """Reports its progress step by step, from a task of its own."""

    async def start_analysis(self, progress_callback) -> str:  # type: ignore[no-untyped-def]
        async def work() -> None:
            for number, step in enumerate(("read", "analyse", "report"), 1):
                await progress_callback(step, number * 33, f"{step} it")

        await asyncio.create_task(work())
        return "analysed"


contract_service = ContractService()


async def update_analysis_progress(analysis_id: str, step: str, percent: int, description: str) -> None:
    async with get_service_connection() as conn:
        await conn.execute("INSERT INTO progress VALUES ($1, $2, $3, $4)", analysis_id, step, percent, description)
