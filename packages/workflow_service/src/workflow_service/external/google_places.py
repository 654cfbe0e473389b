"""Google Places, API (New), version 1: places nearby, places by text, and what is known of one.

Parameters and answers are the provider's own, but for ``fields``: the field mask, without the prefix «places.».
Source: developers.google.com/maps/documentation/places/web-service
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import httpx

from workflow_service.domain.run import JsonObject
from workflow_service.external.faults import ServiceCallError
from workflow_service.external.operation import Operation
from workflow_service.external.service import ExternalService

DEFAULT_FIELDS = ("id", "displayName", "formattedAddress", "location", "types", "businessStatus")
"""What is asked for when ``fields`` does not say: none of the dearer ones (telephone numbers, opening hours)."""

_TRANSIENT = frozenset({"ABORTED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE"})

_LAT_LNG: JsonObject = {
    "type": "object",
    "properties": {
        "latitude": {"type": "number", "minimum": -90, "maximum": 90},
        "longitude": {"type": "number", "minimum": -180, "maximum": 180},
    },
    "required": ["latitude", "longitude"],
    "additionalProperties": False,
}
_CIRCLE: JsonObject = {
    "type": "object",
    "properties": {
        "center": _LAT_LNG,
        "radius": {"type": "number", "minimum": 0, "maximum": 50_000, "description": "Metres."},
    },
    "required": ["center", "radius"],
    "additionalProperties": False,
}
_RECTANGLE: JsonObject = {
    "type": "object",
    "properties": {"low": _LAT_LNG, "high": _LAT_LNG},
    "required": ["low", "high"],
    "additionalProperties": False,
}
_TYPE: JsonObject = {"type": "string", "pattern": "^[a-z][a-z0-9_]*$", "maxLength": 100}
_TYPES: JsonObject = {"type": "array", "items": _TYPE, "maxItems": 50}
_FIELDS: JsonObject = {
    "type": "array",
    "items": {"type": "string", "pattern": r"^(\*|[A-Za-z]+(\.[A-Za-z]+)*)$"},
    "minItems": 1,
    "maxItems": 100,
    "default": list(DEFAULT_FIELDS),
    "description": "What to return of a place: «displayName», «location.latitude»; some fields cost more.",
}
_LOCALE: Mapping[str, JsonObject] = {
    "languageCode": {"type": "string", "pattern": "^[A-Za-z]{2,3}(-[A-Za-z0-9]+)*$"},
    "regionCode": {"type": "string", "pattern": "^[A-Za-z]{2}$"},
}


def _shape(name: str, **shapes: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "properties": shapes,
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "description": name,
    }


def _params(description: str, required: Sequence[str], properties: Mapping[str, JsonObject]) -> JsonObject:
    return {
        "type": "object",
        "description": description,
        "properties": {**properties, **_LOCALE, "fields": _FIELDS},
        "required": list(required),
        "additionalProperties": False,
    }


class GooglePlaces(ExternalService):
    """Places by Google."""

    name: ClassVar[str] = "google_places"
    description: ClassVar[str] = "Places nearby, by text, and their details by Google Places API (New)."
    base_url: ClassVar[str] = "https://places.googleapis.com/v1"
    operations: ClassVar[Mapping[str, Operation]] = {
        "search_nearby": Operation(
            _params(
                "Places of some types within a circle.",
                ["locationRestriction"],
                {
                    "locationRestriction": _shape("Where.", circle=_CIRCLE),
                    "includedTypes": _TYPES,
                    "excludedTypes": _TYPES,
                    "includedPrimaryTypes": _TYPES,
                    "excludedPrimaryTypes": _TYPES,
                    "maxResultCount": {"type": "integer", "minimum": 1, "maximum": 20},
                    "rankPreference": {"enum": ["POPULARITY", "DISTANCE"]},
                },
            )
        ),
        "search_text": Operation(
            _params(
                "Places that fit a text.",
                ["textQuery"],
                {
                    "textQuery": {"type": "string", "minLength": 1, "maxLength": 500},
                    "includedType": _TYPE,
                    "strictTypeFiltering": {"type": "boolean"},
                    "includePureServiceAreaBusinesses": {"type": "boolean"},
                    "openNow": {"type": "boolean"},
                    "minRating": {"type": "number", "minimum": 0, "maximum": 5},
                    "priceLevels": {
                        "type": "array",
                        "items": {"type": "string", "pattern": "^PRICE_LEVEL_[A-Z_]+$"},
                    },
                    "pageSize": {"type": "integer", "minimum": 1, "maximum": 20},
                    "pageToken": {"type": "string", "minLength": 1, "maxLength": 4000},
                    "rankPreference": {"enum": ["RELEVANCE", "DISTANCE"]},
                    "locationBias": _shape("Where rather.", circle=_CIRCLE, rectangle=_RECTANGLE),
                    "locationRestriction": _shape("Where only.", rectangle=_RECTANGLE),
                },
            )
        ),
        "details": Operation(
            _params(
                "What is known of a place.",
                ["placeId"],
                {"placeId": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "maxLength": 500}},
            )
        ),
    }

    async def perform(self, operation: str, params: JsonObject) -> Any:  # Any: JSON
        """Ask the provider once."""
        rest = dict(params)
        fields = rest.pop("fields", None) or DEFAULT_FIELDS
        if operation == "details":
            place_id = rest.pop("placeId")
            return await self.request("GET", f"/places/{place_id}", query=rest, headers=_mask(fields))
        paths = [field if field == "*" else f"places.{field}" for field in fields]
        if operation == "search_text" and "*" not in paths:
            paths.append("nextPageToken")
        path = "/places:searchNearby" if operation == "search_nearby" else "/places:searchText"
        return await self.request("POST", path, headers=_mask(paths), body=rest)

    def authenticate(self, request: httpx.Request, key: str) -> httpx.Request:
        """Add the key as the provider wants it."""
        request.headers["X-Goog-Api-Key"] = key
        return request

    def fault_of(self, response: httpx.Response) -> ServiceCallError:
        """Return what the provider's error means: ``{"error": {"code", "message", "status", "details"}}``."""
        try:
            error = json.loads(response.content)["error"]
            status, message = str(error["status"]), str(error["message"])
        except (ValueError, KeyError, TypeError):
            return super().fault_of(response)
        details = [detail for detail in error.get("details") or () if isinstance(detail, Mapping)]
        reasons = [str(detail["reason"]) for detail in details if detail.get("reason")]
        code = reasons[0] if reasons else status
        if status in ("PERMISSION_DENIED", "UNAUTHENTICATED") or code.startswith("API_KEY"):
            message += "; check WORKFLOW_SERVICES__GOOGLE_PLACES__API_KEY"
        fault = ServiceCallError.of_status(response.status_code, response.headers, f"{message} ({code})", code)
        fault.is_transient = status in _TRANSIENT
        if fault.retry_after is None:
            fault.retry_after = _retry_delay(details)
        return fault


def _mask(paths: Sequence[str]) -> Mapping[str, str]:
    return {"X-Goog-FieldMask": ",".join(paths)}


def _retry_delay(details: Sequence[Mapping[str, Any]]) -> float | None:  # Any: JSON
    """Return the seconds of a ``google.rpc.RetryInfo``: ``{"retryDelay": "1.5s"}``."""
    for detail in details:
        if found := re.fullmatch(r"(\d{1,6}(?:\.\d{1,9})?)s", str(detail.get("retryDelay", ""))):
            return float(found[1])
    return None
