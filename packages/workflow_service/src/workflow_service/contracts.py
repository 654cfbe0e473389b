"""What api and worker say to each other through the broker."""

EXECUTE_RUN = "workflow_service.execute_run"
"""Celery task: claim and execute the run whose id is the only argument, a string."""

QUEUE = "workflow_service"
"""The queue both sides name."""
