"""A LangGraph graph of another package, on the service as a user starts it: listed, asked, answered, over HTTP."""

from pathlib import Path
from typing import Any

import pytest
from installation import Installation, serve
from plugin import EXAMPLE, python_path_with_example

LETTER = {"letter": "Please send EUR 1,200 and USD 40 by Friday."}
AMOUNTS = [{"currency": "EUR", "value": 1200.0}, {"currency": "USD", "value": 40.0}]


def start(service: Installation, letter: dict[str, str], **options: str) -> str:
    body = {"workflow_name": "approval", "input_data": letter, "options": options}
    response = service.api.post("/api/v1/workflows/execute", json=body)
    response.raise_for_status()
    return str(response.json()["run_id"])


def wait(service: Installation, run_id: str) -> dict[str, Any]:
    return dict(service.get(f"runs/{run_id}/wait?timeout=90"))


def test_the_document_shows_the_example() -> None:
    """As it is run here."""
    howto = EXAMPLE.parents[1] / "docs" / "howto" / "graphs.md"
    assert f"```python\n{(EXAMPLE / 'approval.py').read_text('utf-8')}```" in howto.read_text("utf-8")


@pytest.mark.timeout(240)
def test_the_example_runs_asks_is_answered_and_goes_on(tmp_path: Path) -> None:
    """In every tier that a run may have; what went wrong in a node is said in the node's words."""
    with serve(tmp_path, PYTHONPATH=python_path_with_example(tmp_path / "site")) as service:
        names = [workflow["name"] for workflow in service.get("workflows")["workflows"]]
        assert "approval" in names
        for isolation, answer, outcome in (
            ("none", "pay", "paid 2 amounts"),
            ("thread", "refuse", "refused"),
            ("process", "pay", "paid 2 amounts"),
        ):
            run_id = start(service, LETTER, isolation=isolation)
            run = wait(service, run_id)
            assert (run["status"], run["step"], run["percent"]) == ("waiting", "find", 30)
            (question,) = run["questions"]
            assert question["value"]["question"] == "Shall this be paid?"
            assert question["value"]["amounts"] == AMOUNTS
            response = service.api.post(
                f"/api/v1/runs/{run_id}/answer", json={"answers": {question["id"]: answer}}
            )
            assert response.status_code == 202
            assert wait(service, run_id)["status"] == "succeeded"
            result = service.get(f"runs/{run_id}/result")
            assert (result["amounts"], result["outcome"]) == (AMOUNTS, outcome)
            with service.api.stream("GET", f"/api/v1/runs/{run_id}/events") as events:
                kinds = [line.removeprefix("event: ") for line in events.iter_lines() if line.startswith("event:")]
            assert [kind for kind in kinds if kind != "progress"] == [
                *("queued", "started", "waiting", "answered", "started", "succeeded")
            ]
            assert kinds.count("progress") == 4  # find, decide/ask, decide/pay or decide/refuse, decide
        failed = wait(service, start(service, {"letter": "Hello."}))
        assert (failed["status"], failed["error"]["message"]) == (
            "failed",
            "the letter names no amount in EUR or USD",
        )
