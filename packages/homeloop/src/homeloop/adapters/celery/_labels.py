"""What an asyncio task in a worker works for: the job of Celery, by id and name."""

# pyright: basic
# (Celery ships no types: strict mode would complain of every value that comes from it.)

from contextvars import Context

from homeloop.adapters.celery._stacks import entry_of, task_stack


def labels(context: Context) -> dict[str, str]:
    """Return the job's id and its task's name, of a task with this context; see `homeloop.label_tasks`."""
    task = entry_of(task_stack, context)
    if task is None or (request := entry_of(task.request_stack, context)) is None:
        return {}
    return {"celery id": str(request.id), "celery task": str(task.name)}
