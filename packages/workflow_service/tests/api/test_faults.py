"""What is wrong with a request is told with its place, for those who show it beside a field."""

import pickle

import pytest

from workflow_service.ports import InvalidInputError

pytestmark = pytest.mark.needs("postgres")

EXECUTE = "/api/v1/workflows/execute"


def test_fault_of_the_input_has_its_place(client):
    """A value that the database cannot hold is named by its path; a key has none, and is told in words alone."""
    request = {"workflow_name": "idle", "input_data": {"people": [{"name": "\0"}]}}
    problem = client.post(EXECUTE, json=request).json()
    assert problem["errors"] == [
        {
            "in": "body",
            "field": "input_data.people[0].name",
            "message": "holds a NUL character, which cannot be stored",
        }
    ]
    assert problem["detail"] == "input_data.people[0].name holds a NUL character, which cannot be stored"
    problem = client.post(EXECUTE, json={"workflow_name": "idle", "input_data": {"\0": 1}}).json()
    assert "errors" not in problem


def test_error_with_faults_survives_pickle():
    """It crosses a process tier whole, and its text is the message."""
    error = pickle.loads(pickle.dumps(InvalidInputError("no", [("input_data.a", "is wrong")])))
    assert (str(error), error.faults) == ("no", (("input_data.a", "is wrong"),))
