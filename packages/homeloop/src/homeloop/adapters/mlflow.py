"""Let MLflow's models of Python predict in async code. Tested with MLflow 3.17."""

# pyright: basic
# (MLflow's functions are typed here and there: strict mode would complain of what comes from the others.)

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, Self

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

    A class that defines both ``predict`` and ``predict_async`` is refused with a TypeError, and so is a model that
    has neither.

    ``predict`` raises: what ``predict_async`` raises; an `MlflowException` (``DEADLINE_EXCEEDED``) when the time
    is over; what else `homeloop.run` raises.

    Thread: any except the default runtime's own, where ``await model.predict_async(...)`` is the way.
    Cancellation: as `homeloop.run`.
    """

    timeout: float | None = MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get()

    def __init_subclass__(cls, **options: Any) -> None:
        own = "predict_async" in cls.__dict__
        if own and "predict" in cls.__dict__:
            raise TypeError(f"{cls.__qualname__} has predict and predict_async: predict is made of predict_async")
        if own or (hasattr(cls, "predict_async") and _has_no_predict(cls)):  # inherited from a mix-in
            cls.predict = _blocking(cls.predict_async)  # type: ignore[attr-defined,method-assign]
        super().__init_subclass__(**options)  # which has MLflow look at the parameters and hints of predict

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if _has_no_predict(cls):  # MLflow would take what its abstract method returns, None, for the prediction
            raise TypeError(f"{cls.__qualname__} has no predict_async")
        return super().__new__(cls)


def _has_no_predict(model: type[PythonModel]) -> bool:
    return getattr(model.predict, "__isabstractmethod__", False)


def _blocking(predict_async: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    @wraps(predict_async)
    def predict(self: AsyncPythonModel, *args: Any, **kwargs: Any) -> Any:
        try:
            return run(partial(self.predict_async, *args, **kwargs), timeout=self.timeout)  # type: ignore[attr-defined]
        except CallTimeoutError as late:
            raise MlflowException(str(late), error_code=DEADLINE_EXCEEDED) from late

    return predict
