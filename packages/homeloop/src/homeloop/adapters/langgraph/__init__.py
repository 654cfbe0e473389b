"""Run LangGraph's graphs on the loop they belong to, in any host and any tier. Tested with LangGraph 1.2."""

from homeloop import label_tasks
from homeloop.adapters.langgraph._contexts import (
    ContextRecord,
    IsolatedLangGraphContext,
    IsolationFindings,
    LangGraphEventLoopManager,
    execute_in_isolated_thread,
    execute_langgraph_in_process,
    get_langgraph_manager,
)
from homeloop.adapters.langgraph._drain import drain
from homeloop.adapters.langgraph._graph import LoopLocalGraph
from homeloop.adapters.langgraph._guard import guard
from homeloop.adapters.langgraph._labels import labels
from homeloop.adapters.langgraph._options import isolation_from_options
from homeloop.adapters.langgraph._processes import ProcessIsolatedLangGraphExecutor
from homeloop.adapters.langgraph._progress import ProgressTrackingWorkflow

__all__ = (
    "ContextRecord",
    "IsolatedLangGraphContext",
    "IsolationFindings",
    "LangGraphEventLoopManager",
    "LoopLocalGraph",
    "ProcessIsolatedLangGraphExecutor",
    "ProgressTrackingWorkflow",
    "drain",
    "execute_in_isolated_thread",
    "execute_langgraph_in_process",
    "get_langgraph_manager",
    "guard",
    "isolation_from_options",
)

label_tasks(labels)
