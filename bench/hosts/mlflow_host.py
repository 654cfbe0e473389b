"""A pyfunc model, logged as code, that asks the service once."""

import mlflow.models
import ways
from mlflow.pyfunc.model import PythonModel


class Asking(PythonModel):
    """Its predict is sync, as MLflow has it."""

    def predict(self, context, model_input, params=None):  # MLflow would check hints
        """Ask once, however many rows there are."""
        return [ways.ask()]


mlflow.models.set_model(Asking())
