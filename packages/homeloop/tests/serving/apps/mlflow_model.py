"""A pyfunc model, logged as code, that asks a service; negative numbers take for ever, 0 asks what is left."""

import asyncio
import os
from typing import Any

import httpx
import mlflow.models
import pandas as pd

from homeloop import LoopLocal, default_runtime, map_concurrent
from homeloop.adapters.mlflow import AsyncPythonModel

clients = LoopLocal(lambda: httpx.AsyncClient(base_url=os.environ["SITE"]), name="clients")


class Asking(AsyncPythonModel):
    timeout = 2.0

    async def predict_async(
        self, context: object, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[str]:
        return await map_concurrent(self.ask, [int(x) for x in model_input["x"]], concurrency=10)

    async def ask(self, number: int) -> str:
        if number == 0:
            return f"{default_runtime().statistics().in_flight} calls, {len(asyncio.all_tasks())} tasks"
        if number < 0:
            await asyncio.Event().wait()
        async with clients() as client:
            return f"{number} {(await client.get('/')).json()}"


mlflow.models.set_model(Asking())
