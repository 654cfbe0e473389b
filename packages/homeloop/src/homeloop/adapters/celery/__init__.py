"""
Run ``async def`` Celery tasks on the process's one runtime.

Tested with Celery 5.5, 5.6 and 5.7, on the prefork, threads, solo, gevent and eventlet pools and on our own.
"""

from homeloop import label_tasks
from homeloop.adapters.celery._config import RecommendedConfig, recommended_config
from homeloop.adapters.celery._function import task_function
from homeloop.adapters.celery._install import install
from homeloop.adapters.celery._labels import labels
from homeloop.adapters.celery._task import AsyncTask
from homeloop.adapters.celery._users import UserSeal, carry_users, user_aware_task

__all__ = (
    "AsyncTask",
    "RecommendedConfig",
    "UserSeal",
    "carry_users",
    "install",
    "recommended_config",
    "task_function",
    "user_aware_task",
)

label_tasks(labels)
