"""WeatherAPI.com, version 1: current weather, forecasts, alerts, and the places it knows.

Parameters and answers are the provider's own. Source: www.weatherapi.com/docs/
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx

from workflow_service.domain.run import JsonObject
from workflow_service.external.faults import ServiceCallError
from workflow_service.external.operation import Operation
from workflow_service.external.service import ExternalService

_Q: JsonObject = {
    "type": "string",
    "minLength": 1,
    "maxLength": 200,
    "title": "Place",
    "description": "A city, «latitude,longitude», a US, UK or Canadian post code, «iata:…», «metar:…», «id:…».",
}
_LANG: JsonObject = {
    "type": "string",
    "pattern": "^[a-z]{2,3}(_[a-z]+)?$",
    "description": "Language of the texts.",
}
_AQI: JsonObject = {"type": "boolean", "description": "Whether air quality is wanted too."}


def _params(description: str, required: list[str], **properties: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


_FAULTS: Mapping[int, str] = {
    1002: "no API key was sent",
    1003: "no place was given",
    1005: "the address of the request is not valid",
    1006: "no place fits the one given",
    2006: "the API key is not valid",
    2007: "the API key has used up its calls of this month",
    2008: "the API key is disabled",
    2009: "the API key's plan does not include this",
    9999: "the provider failed",
}
"""The provider's error codes, in our words: its own are not always the same."""

_INTERNAL = 9999  # comes with status 400, and another attempt may pass
_KEY_FAULTS = frozenset({1002, 2006, 2007, 2008, 2009})


class WeatherApi(ExternalService):
    """Weather by WeatherAPI.com."""

    name: ClassVar[str] = "weatherapi"
    description: ClassVar[str] = "Current weather, forecasts and official alerts by WeatherAPI.com."
    base_url: ClassVar[str] = "https://api.weatherapi.com/v1"
    operations: ClassVar[Mapping[str, Operation]] = {
        "current": Operation(_params("The weather now.", ["q"], q=_Q, aqi=_AQI, lang=_LANG)),
        "forecast": Operation(
            _params(
                "The weather of the next days, by the hour, with alerts if wanted.",
                ["q"],
                q=_Q,
                days={
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 14,
                    "default": 1,
                    "description": "From today on.",
                },
                dt={"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$", "description": "This day only."},
                hour={
                    "type": "integer",
                    "minimum": 0,
                    "maximum": 23,
                    "description": "This hour of each day only.",
                },
                alerts={"type": "boolean", "description": "Whether official alerts are wanted too."},
                aqi=_AQI,
                lang=_LANG,
            )
        ),
        "alerts": Operation(_params("Official weather alerts.", ["q"], q=_Q)),
        "search": Operation(_params("The places that fit a name.", ["q"], q=_Q)),
    }

    async def perform(self, operation: str, params: JsonObject) -> Any:  # Any: JSON
        """Ask the provider once."""
        query = {name: _as_query(value) for name, value in params.items()}
        if operation == "forecast":
            query.setdefault("days", 1)
        return await self.request("GET", f"/{operation}.json", query=query)

    def authenticate(self, request: httpx.Request, key: str) -> httpx.Request:
        """Add the key to the query: the provider takes it nowhere else."""
        request.url = request.url.copy_merge_params({"key": key})
        return request

    def fault_of(self, response: httpx.Response) -> ServiceCallError:
        """Return what the provider's error means: ``{"error": {"code": 1006, "message": "…"}}``."""
        code, message = _provider_error(response)
        if code is None:
            return super().fault_of(response)
        if code in _KEY_FAULTS:
            message += "; check WORKFLOW_SERVICES__WEATHERAPI__API_KEY"
        fault = ServiceCallError.of_status(response.status_code, response.headers, f"{message} ({code})", code)
        fault.is_transient = fault.is_transient or code == _INTERNAL
        return fault


def _as_query(value: Any) -> str | int:  # Any: JSON that fits the schema
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, int) else str(value)


def _provider_error(response: httpx.Response) -> tuple[int | None, str]:
    try:
        error = json.loads(response.content)["error"]
        code = int(error["code"])
    except (ValueError, KeyError, TypeError):
        return None, ""
    return code, _FAULTS.get(code) or str(error.get("message") or "the provider refused")
