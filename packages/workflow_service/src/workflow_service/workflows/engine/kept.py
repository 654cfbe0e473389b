"""What a run keeps of its steps, for the worker that goes on with it: outcomes in LangGraph's checkpoint store."""

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint

from workflow_service.workflows.engine.outcome import Outcome

Saver: TypeAlias = BaseCheckpointSaver[Any]  # Any: its version type, which is the saver's own affair


class Checkpointer(Protocol):
    """Lends savers, each for one run, on the loop that the run is on."""

    def __call__(self, run_id: UUID, attempt: int | None, /) -> AbstractAsyncContextManager[Saver]:
        """Lend a saver of the run with that id.

        Args:
            run_id: The run.
            attempt: Who writes: `RunContext.attempt`. With None it writes for a run that the service does not
                know, and removes what an ended one has kept.

        Raises:
            ClaimLostError: Out of the saver's methods: the attempt holds the run no longer. Nothing was written.
        """
        ...


class KeptOutcomes:
    """
    The outcomes of one run.

    A run has one checkpoint, and a write in it for each step that has ended, under the step's fingerprint. A
    step's outcome is kept once: a worker that comes too late changes nothing.
    """

    def __init__(self, saver: Saver, run_id: UUID) -> None:
        self._saver = saver
        # Two workers on one run, of which one has lost it unawares, must not begin a checkpoint each.
        self._checkpoint_id = str(run_id)
        self._thread: RunnableConfig = {"configurable": {"thread_id": str(run_id), "checkpoint_ns": ""}}
        self._config: RunnableConfig = {
            "configurable": {"thread_id": str(run_id), "checkpoint_ns": "", "checkpoint_id": self._checkpoint_id}
        }

    async def read(self) -> Mapping[str, Outcome]:
        """Return what is kept, by fingerprint; begins the checkpoint if there is none."""
        kept = await self._saver.aget_tuple(self._config)
        if kept is None:
            checkpoint = empty_checkpoint()
            checkpoint["id"] = self._checkpoint_id
            await self._saver.aput(self._thread, checkpoint, {"source": "input", "step": -1, "parents": {}}, {})
            return {}
        writes = kept.pending_writes or ()
        return {fingerprint: Outcome.from_json(json.loads(text)) for fingerprint, _step, text in writes}

    async def keep(self, step: str, fingerprint: str, outcome: Outcome) -> None:
        """Keep how a step ended; returns when it is stored. Raises StoreUnavailableError and ClaimLostError."""
        # As text: the store's own format has no whole numbers beyond 64 bits, and JSON has.
        text = json.dumps(outcome.to_json(), ensure_ascii=False)
        await self._saver.aput_writes(self._config, [(step, text)], fingerprint)
