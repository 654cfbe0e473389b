"""What a task of LangGraph works for: the node of its graph, and the conversation."""

from collections.abc import Mapping
from contextvars import Context
from typing import Any, cast

from langchain_core.runnables.config import var_child_runnable_config


def labels(context: Context) -> dict[str, str]:
    """Return node and conversation of a task with this context; see `homeloop.label_tasks`."""
    config = cast("Mapping[str, Any]", context.get(var_child_runnable_config) or {})
    metadata: Mapping[str, Any] = config.get("metadata") or {}
    configurable: Mapping[str, Any] = config.get("configurable") or {}
    found = {"graph node": metadata.get("langgraph_node"), "thread_id": configurable.get("thread_id")}
    return {name: str(value) for name, value in found.items() if value is not None}
