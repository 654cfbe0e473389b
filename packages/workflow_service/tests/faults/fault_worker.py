"""The service's worker, with the ledger among its workflows: ``celery --app fault_worker worker``."""

import fault_ledger  # noqa: F401 - adds itself

from workflow_service.worker.app import app

__all__ = ("app",)
