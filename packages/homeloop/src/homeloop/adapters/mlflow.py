"""Let MLflow's models of Python predict in async code. Tested with MLflow 3.17."""

# pyright: basic
# (MLflow's functions are typed here and there: strict mode would complain of what comes from the others.)

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED
from mlflow.pyfunc.model import PythonModel

from homeloop import run
from homeloop.errors import CallTimeoutError

__all__ = ("AsyncPythonModel",)


class AsyncPythonModel(PythonModel):
    """
    A pyfunc model that predicts in ``async def predict_async(self, context, model_input, params=None)``.

    ``predict``, which MLflow calls, is made of it: it runs it on the process's default runtime, whose loop stays,
    and blocks meanwhile. So predictions share clients and pools (`homeloop.LoopLocal`), and overlap as far as the
    server has threads for them. Parameters, which of them may be left out, and type hints are those of MLflow's
    ``predict``. For a batch: ``await homeloop.map_concurrent(self.ask, rows, concurrency=10)``.

    Attributes:
        timeout: Seconds for a prediction; None for ever. Then it is cancelled, and when its clean-up has run the
            server answers 504. By default it is as long as the scoring server waits before it answers 504 by
            itself, and leaves the prediction's thread running: ``MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT``, or 60.

    ``predict`` raises: what ``predict_async`` raises; an `MlflowException` (``DEADLINE_EXCEEDED``) when the time
    is over; what else `homeloop.run` raises.

    Thread: any except the default runtime's own, where ``await model.predict_async(...)`` is the way.
    Cancellation: as `homeloop.run`.
    """

    timeout: float | None = MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get()

    def __init_subclass__(cls, **options: Any) -> None:
        predict_async = cls.__dict__.get("predict_async")
        if predict_async is not None:
            cls.predict = _blocking(predict_async)  # type: ignore[method-assign]
        super().__init_subclass__(**options)  # which has MLflow look at the parameters and hints of predict


def _blocking(predict_async: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    @wraps(predict_async)
    def predict(self: AsyncPythonModel, *args: Any, **kwargs: Any) -> Any:
        try:
            return run(partial(predict_async, self, *args, **kwargs), timeout=self.timeout)
        except CallTimeoutError as late:
            raise MlflowException(str(late), error_code=DEADLINE_EXCEEDED) from late

    return predict
