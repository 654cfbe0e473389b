"""A FastAPI application whose one endpoint asks the service; sync, unless the way is for a running loop."""

import ways
from fastapi import FastAPI

app = FastAPI()


def predict() -> list[str]:
    """Ask once."""
    return [ways.ask()]


async def predict_inside_the_loop() -> list[str]:
    """Ask once, from sync code on the loop's thread."""
    return predict()


app.post("/invocations")(predict_inside_the_loop if ways.NAME.endswith("async endpoint") else predict)
