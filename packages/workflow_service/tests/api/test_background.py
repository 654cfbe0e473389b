"""What the API does beside requests: one kind of work does not wait for another."""

import asyncio
import threading
from uuid import UUID

import pytest

from workflow_service.usecases import afterlife

pytestmark = pytest.mark.needs("postgres")

EXECUTE = "/api/v1/workflows/execute"


@pytest.fixture
def settings(settings):
    """With a reaper that looks all the time."""
    return settings.model_copy(update={"reap_interval": 0.05})


class Unforgetful:
    """Fits the Workflow port; what its runs keep is never removed."""

    name = "unforgetful"
    description = "Hangs when it is to forget."
    input_schema = {"type": "object"}  # noqa: RUF012 - nobody changes it

    def __init__(self):
        self.is_forgetting = threading.Event()

    def check(self, input_data):
        """Take anything."""

    async def forget(self, _run_id):
        self.is_forgetting.set()
        await asyncio.Event().wait()


def test_a_removal_that_hangs_does_not_hold_up_lost_runs(serve, wait_until, monkeypatch):
    """While what an ended run keeps is being removed, a run whose worker fell silent is queued again."""
    monkeypatch.setattr(afterlife, "_FORGET_BOUND", 3600.0)
    workflow = Unforgetful()
    server = serve(workflows={"unforgetful": workflow})

    def execute():
        answer = client.post(EXECUTE, json={"workflow_name": "unforgetful", "input_data": {}})
        return answer.json()["run_id"]

    with server.client() as client:
        client.post(f"/api/v1/runs/{execute()}/cancel", json={"mode": "rollback"}).raise_for_status()
        wait_until(workflow.is_forgetting.is_set)
        lost = execute()
        assert server.call(lambda services: services.runs.claim(UUID(lost), "worker", 0.001)) is not None
        wait_until(lambda: client.get(f"/api/v1/runs/{lost}").json()["status"] == "queued")
