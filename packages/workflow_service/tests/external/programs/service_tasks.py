"""Celery tasks as seed 002 has them: each opens services, asks them, and closes them."""

import asyncio
import os
from typing import Any

from celery import Celery

from homeloop.adapters.celery import install
from workflow_service.external import service_registry

app = Celery("service_tasks", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
app.conf.update(task_default_queue=os.environ["QUEUE"], result_expires=60, broker_connection_retry_on_startup=True)
install(app)


@app.task(name="emergency_contacts")  # type: ignore[untyped-decorator]
async def emergency_contacts(city: str, user_id: str) -> dict[str, Any]:
    """Ask for the weather of a city, then for hospitals around it; two failures on the way are tried again."""
    weather_class = service_registry.get_service("weatherapi")
    places_class = service_registry.get_service("google_places")
    async with weather_class() as weather, places_class() as places:
        current = await weather.call(operation="current", params={"q": city}, user_id=user_id, cache_ttl=60)
        if not current.success:
            return {"error": current.error}
        where = {"latitude": current.data["location"]["lat"], "longitude": current.data["location"]["lon"]}
        params = {
            "locationRestriction": {"circle": {"center": where, "radius": 5000}},
            "includedTypes": ["hospital"],
            "fields": ["displayName", "internationalPhoneNumber"],
        }
        found = await asyncio.gather(
            *(places.call("search_nearby", params, user_id) for _ in range(3)),
        )
    return {
        "degrees": current.data["current"]["temp_c"],
        "hospitals": [place["internationalPhoneNumber"] for place in found[0].data["places"]],
        "errors": [answer.error for answer in found if answer.error],
    }
