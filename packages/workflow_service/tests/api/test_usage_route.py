"""What a user's calls to language models took, over HTTP."""

from uuid import uuid4

import pytest

from workflow_service.domain.language_model import ModelUsage

pytestmark = pytest.mark.needs("postgres")

USAGE = "/api/v1/usage"


def test_usage_is_the_users_own_by_model_and_together(server, client, bob):
    """Tokens, calls and dollars, of all calls or of one run."""
    run_id = uuid4()
    for of_run, usage in ((run_id, ModelUsage("openai:m", 100, 20, 0.5)), (None, ModelUsage("ollama:n", 1, 2))):
        server.call(lambda services, of=of_run, used=usage: services.usage.record("alice", of, used))
    all_calls = client.get(USAGE).json()
    assert [model["model"] for model in all_calls["models"]] == ["openai:m", "ollama:n"]
    del all_calls["models"]
    assert all_calls == {
        "calls": 2, "input_tokens": 101, "output_tokens": 22, "cost": 0.5, "calls_without_price": 1,
    }  # fmt: skip
    assert client.get(USAGE, params={"run_id": str(run_id)}).json()["calls"] == 1
    assert client.get(USAGE, params={"since": "2999-01-01T00:00:00Z"}).json()["models"] == []
    assert bob.get(USAGE, params={"run_id": str(run_id)}).json()["calls"] == 0


def test_unknown_costs_are_not_free_ones(server, client):
    """Null says that nobody knows, 0 that nothing was to be paid; a sum of known costs tells how many are not."""

    def cost(run_id, *costs):
        for each in costs:
            used = ModelUsage("openai:m" if each is not None else "ollama:n", 10, 2, each)
            server.call(lambda services, used=used: services.usage.record("alice", run_id, used))
        told = client.get(USAGE, params={"run_id": str(run_id)}).json()
        return told["cost"], told["calls_without_price"], [model["cost"] for model in told["models"]]

    assert cost(uuid4()) == (0.0, 0, [])
    assert cost(uuid4(), None, None) == (None, 2, [None])
    assert cost(uuid4(), 0.0) == (0.0, 0, [0.0])
    assert cost(uuid4(), 0.0, None) == (0.0, 1, [0.0, None])
    assert cost(uuid4(), 0.5, None, 0.25) == (0.75, 1, [0.75, None])


@pytest.mark.parametrize("query", ["since=yesterday", "since=2025-01-01T00:00:00", "until=0.5", "run_id=5"])
def test_a_time_without_a_zone_and_what_is_none_are_refused(client, query):
    """422 as a problem document that names the parameter."""
    response = client.get(f"{USAGE}?{query}")
    assert (response.status_code, response.headers["Content-Type"]) == (422, "application/problem+json")
    assert query.partition("=")[0] in response.json()["detail"]
