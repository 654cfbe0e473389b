"""A4, A6, G6: an async pyfunc model under MLflow's scoring server."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

BOUND = 40.0  # seconds; tells a hang from an answer
APPS = Path(__file__).parent / "apps"
SAVE = """
import sys
import mlflow.pyfunc
mlflow.pyfunc.save_model(sys.argv[1], python_model=sys.argv[2], pip_requirements=[])
"""
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}

Serve = Callable[..., "AbstractContextManager[tuple[str, subprocess.Popen[str]]]"]
Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of `mlflow_model`, as MLflow saves it."""
    path = tmp_path_factory.mktemp("mlflow") / "model"
    subprocess.run(
        [sys.executable, "-c", SAVE, path, APPS / "mlflow_model.py"],
        check=True,
        timeout=BOUND,
        cwd=path.parent,
        env={**os.environ, **QUIET},
    )
    return path


@pytest.fixture
def served(model: Path, site: Any, serve: Serve) -> Iterator[tuple[httpx.Client, "subprocess.Popen[str]"]]:
    """A client of the scoring server's application, under uvicorn as ``mlflow models serve`` starts it."""
    environment = {"SITE": site.url, "__pyfunc_model_path__": str(model), **QUIET}
    with (
        serve("mlflow.pyfunc.scoring_server.app:app", **environment) as (url, server),
        httpx.Client(base_url=url, timeout=BOUND) as client,
    ):
        yield client, server


def predict(client: httpx.Client, *numbers: int) -> httpx.Response:
    """Ask for the prediction of some numbers."""
    return client.post("/invocations", json={"dataframe_records": [{"x": number} for number in numbers]})


def predictions(answer: httpx.Response) -> list[str]:
    """Return what the model said."""
    return list(answer.json()["predictions"])


def test_g6_one_request_twenty_at_once_a_hundred_items(served: Any, site: Any) -> None:
    """One, then 3 x 20 at once, then 100 items in one batch and in ten: all are 200, and nothing stays open."""
    client, server = served
    assert predict(client, 7).json() == {"predictions": ["7 ok"]}
    with ThreadPoolExecutor(20) as pool:
        for _ in range(3):
            answers = list(pool.map(lambda number: predict(client, number), range(1, 21)))
            assert [each.status_code for each in answers] == [200] * 20
            assert [predictions(each) for each in answers] == [[f"{number} ok"] for number in range(1, 21)]
        tens = [range(first, first + 10) for first in range(1, 101, 10)]
        answers = list(pool.map(lambda numbers: predict(client, *numbers), tens))
    assert [each.status_code for each in answers] == [200] * 10
    hundred = [f"{number} ok" for number in range(1, 101)]
    assert [item for each in answers for item in predictions(each)] == hundred
    assert predict(client, *range(1, 101)).json() == {"predictions": hundred}
    server.terminate()
    log = server.communicate(timeout=BOUND)[1]
    assert server.returncode == -signal.SIGTERM, log
    assert "Traceback" not in log
    site.wait_for_no_connection()


def test_g6_a_timeout_is_504_and_leaves_no_work(served: Any) -> None:
    """What takes too long is cancelled with its batch; the error says where it waited, and the next call works."""
    client, _ = served
    late = predict(client, 1, -1, 2, -1)
    assert late.status_code == 504
    assert late.json()["error_code"] == "DEADLINE_EXCEEDED"
    assert "did not finish within 2 s; it was waiting at mlflow_model.py" in late.json()["message"]
    assert predict(client, 0).json() == {"predictions": ["1 calls, 2 tasks"]}, "those of this very question"
    assert predict(client, 5).json() == {"predictions": ["5 ok"]}


def test_g6_mlflow_models_serve(model: Path, site: Any) -> None:
    """The command itself, which starts the same application."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bin_folder = Path(sys.executable).parent
    server = subprocess.Popen(
        [
            *(bin_folder / "mlflow", "models", "serve", "--env-manager", "local"),
            *("--model-uri", model, "--host", "127.0.0.1", "--port", str(port)),
        ],
        env={**os.environ, "SITE": site.url, "PATH": f"{bin_folder}:{os.environ['PATH']}", **QUIET},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stderr is not None
        assert any("Uvicorn running" in line for line in server.stderr)
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=BOUND) as client, ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda number: predict(client, number), range(1, 21)))
        assert [predictions(each) for each in answers] == [[f"{number} ok"] for number in range(1, 21)]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=BOUND)


def test_g6_predict_is_made_of_the_predict_async_that_the_class_has(script: Script) -> None:
    """A mix-in's comes before a base's; a predict of its own is kept; both are refused, and neither."""
    ended = script(
        """
        from typing import Any
        from homeloop.adapters.mlflow import AsyncPythonModel

        class Base(AsyncPythonModel):
            async def predict_async(self, context, model_input: list[str], params=None):
                return ["base"]

        class MixIn:
            async def predict_async(self, context, model_input: list[str], params=None):
                return ["mix-in"]

        class Over(MixIn, Base):
            pass

        class Only(MixIn, AsyncPythonModel):
            pass

        class Kept(Base):
            def predict(self, context, model_input: list[str], params=None):
                return ["kept", *super().predict(context, model_input)]

        class Later(Kept):
            pass

        print([model().predict(None, ["x"]) for model in (Base, Over, Only, Kept, Later)])
        try:
            class Both(AsyncPythonModel):
                def predict(self, context, model_input: list[str], params=None):
                    return ["predict"]

                async def predict_async(self, context, model_input: list[str], params=None):
                    return ["predict_async"]
        except TypeError as error:
            print(error)

        class Neither(AsyncPythonModel):
            async def predictasync(self, context, model_input: list[str], params=None):
                return ["misspelt"]

        try:
            Neither()
        except TypeError as error:
            print(error)
        """,
        **QUIET,
        timeout=BOUND,
    )
    printed = [
        "[['base'], ['mix-in'], ['mix-in'], ['kept', 'base'], ['kept', 'base']]",
        "Both has predict and predict_async: predict is made of predict_async",
        "Neither has no predict_async",
    ]
    assert (ended.returncode, ended.stdout.splitlines()) == (0, printed), ended.stderr


def test_g6_predict_outside_of_the_server(script: Script) -> None:
    """In a thread and in a running loop; MLflow checks type hints; the runtime's own thread is refused."""
    ended = script(
        """
        import asyncio, homeloop, pydantic, warnings
        from mlflow.exceptions import MlflowException
        from homeloop.adapters.mlflow import AsyncPythonModel

        class Message(pydantic.BaseModel):
            text: str

        class Loud(AsyncPythonModel):
            async def predict_async(self, model_input: list[Message], params=None) -> list[str]:
                await asyncio.sleep(0)
                return [each.text.upper() + str((params or {}).get("n", "")) for each in model_input]

        class Louder(Loud):
            async def predict_async(self, model_input: list[Message], params=None) -> list[str]:
                return [each + "!" for each in await super().predict_async(model_input, params)]

        model = Louder()
        print(model.timeout, model.predict([{"text": "a"}], {"n": 1}))

        async def cell():
            return model.predict([{"text": "b"}]), await model.predict_async([Message(text="c")])

        print(asyncio.run(cell()))
        try:
            model.predict([{"words": "d"}])
        except MlflowException as error:
            print("validate" in str(error), error.get_http_status_code())
        try:
            homeloop.run(cell)
        except homeloop.errors.WrongThreadError as error:
            print("await instead" in str(error))
        """,
        **QUIET,
        timeout=BOUND,
    )
    printed = ["60 ['A1!']", "(['B!'], ['C!'])", "True 400", "True"]
    assert (ended.returncode, ended.stdout.splitlines()) == (0, printed), ended.stderr
