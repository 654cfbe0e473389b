"""
Celery tasks that survive their worker: killed in the middle, they go on from their last checkpoint.

The records are in PostgreSQL (`PostgresStore`, which needs ``homeloop[database]``). Tested with PostgreSQL 16
and asyncpg 0.32.
"""

from homeloop.adapters.celery._checkpoints import Checkpoint, RecoveryContext
from homeloop.adapters.celery.recovery._postgres import PostgresStore
from homeloop.adapters.celery.recovery._records import RecoveryStore, TaskRecord
from homeloop.adapters.celery.recovery._recovery import Recovery, recover_tasks

__all__ = (
    "Checkpoint",
    "PostgresStore",
    "Recovery",
    "RecoveryContext",
    "RecoveryStore",
    "TaskRecord",
    "recover_tasks",
)
