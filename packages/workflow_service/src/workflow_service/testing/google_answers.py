"""What Google's Places API (New) answers, for the places there are."""

from collections.abc import Mapping, Sequence
from typing import Any

from workflow_service.testing.places import PLACES, Place, Spot, distance

CODES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""HTTP statuses by the names of google.rpc."""

_PAGE = 20  # results at most, and when nothing is said
_NO_MASK = (
    "FieldMask is a required parameter. Set the header 'X-Goog-FieldMask' or the query parameter 'fields'; "
    "'*' asks for all fields."
)


def failure(status: str, message: str, reason: str | None = None) -> tuple[int, Any]:  # Any: JSON
    """Return HTTP status and JSON of an error, as google.rpc has it."""
    error: dict[str, Any] = {"code": CODES[status], "message": message, "status": status}
    if reason is not None:
        error["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "googleapis.com",
                "metadata": {"service": "places.googleapis.com"},
            }
        ]
    return error["code"], {"error": error}


def search_nearby(body: Mapping[str, Any], mask: str | None) -> tuple[int, Any]:  # Any: JSON
    """Return status and JSON of ``POST /v1/places:searchNearby``; the key has been looked at."""
    try:
        circle = body["locationRestriction"]["circle"]
        centre, radius = circle["center"], float(circle["radius"])
        latitude, longitude = float(centre["latitude"]), float(centre["longitude"])
    except (KeyError, TypeError, ValueError):
        return failure("INVALID_ARGUMENT", "location_restriction must be a circle with center and radius.")
    if not 0 <= radius <= 50_000:
        return failure("INVALID_ARGUMENT", "Radius must be between 0 and 50000 meters.")
    included = {*body.get("includedTypes", ()), *body.get("includedPrimaryTypes", ())}
    excluded = {*body.get("excludedTypes", ()), *body.get("excludedPrimaryTypes", ())}
    if both := included & excluded:
        return failure("INVALID_ARGUMENT", f"Types are both included and excluded: {', '.join(sorted(both))}.")

    def metres(spot: Spot) -> float:
        return distance(latitude, longitude, spot.latitude, spot.longitude)

    found = [
        (place, spot)
        for place, spot in _all()
        if metres(spot) <= radius and (not included or spot.type in included) and spot.type not in excluded
    ]
    if body.get("rankPreference") == "DISTANCE":
        found.sort(key=lambda each: metres(each[1]))
    else:
        found.sort(key=lambda each: -each[1].ratings)
    return _list(found[: int(body.get("maxResultCount", _PAGE))], mask)


def search_text(body: Mapping[str, Any], mask: str | None) -> tuple[int, Any]:  # Any: JSON
    """Return status and JSON of ``POST /v1/places:searchText``."""
    words = {word for word in str(body.get("textQuery", "")).lower().replace(",", " ").split() if word != "in"}
    if not words:
        return failure("INVALID_ARGUMENT", "Empty text_query.")
    wanted = body.get("includedType")
    found = [
        (place, spot)
        for place, spot in _all()
        if words <= set(f"{spot.name} {spot.type} {place.name} {place.country}".lower().replace("_", " ").split())
        and wanted in (None, spot.type)
    ]
    size = int(body.get("pageSize") or _PAGE)
    try:
        begin = int(str(body.get("pageToken") or "page-0").removeprefix("page-"))
    except ValueError:
        return failure("INVALID_ARGUMENT", "Invalid page_token.")
    more = f"page-{begin + size}" if begin + size < len(found) else None
    return _list(found[begin : begin + size], mask, more)


def details(place_id: str, mask: str | None) -> tuple[int, Any]:  # Any: JSON
    """Return status and JSON of ``GET /v1/places/<id>``."""
    if not mask:
        return failure("INVALID_ARGUMENT", _NO_MASK)
    for place, spot in _all():
        if spot.id == place_id:
            return _masked([_object(place, spot)], mask, "")
    return failure("INVALID_ARGUMENT", f"Not a valid Place ID: {place_id}")


def _all() -> Sequence[tuple[Place, Spot]]:
    return [(place, spot) for place in PLACES for spot in place.spots]


def _list(found: Sequence[tuple[Place, Spot]], mask: str | None, more: str | None = None) -> tuple[int, Any]:
    if not mask:
        return failure("INVALID_ARGUMENT", _NO_MASK)
    status, data = _masked([_object(place, spot) for place, spot in found], mask, "places")
    if status == 200 and more is not None and ("nextPageToken" in mask.split(",") or mask == "*"):
        data["nextPageToken"] = more
    return status, data


def _object(place: Place, spot: Spot) -> Mapping[str, Any]:
    national = spot.phone.partition(" ")[2]
    return {
        "name": f"places/{spot.id}",
        "id": spot.id,
        "types": [spot.type, "point_of_interest", "establishment"],
        "primaryType": spot.type,
        "displayName": {"text": spot.name, "languageCode": "en"},
        "formattedAddress": f"{spot.address}, {place.country}",
        "shortFormattedAddress": spot.address,
        "location": {"latitude": spot.latitude, "longitude": spot.longitude},
        "nationalPhoneNumber": national,
        "internationalPhoneNumber": spot.phone,
        "businessStatus": "OPERATIONAL",
        "rating": 4.1,
        "userRatingCount": spot.ratings,
        "websiteUri": f"https://example.com/{spot.id}",
        "googleMapsUri": f"https://maps.google.com/?cid={spot.ratings}",
        "utcOffsetMinutes": 0,
        "currentOpeningHours": {"openNow": True, "weekdayDescriptions": ["Monday: Open 24 hours"]},
        "regularOpeningHours": {"openNow": True, "weekdayDescriptions": ["Monday: Open 24 hours"]},
    }


def _masked(objects: Sequence[Mapping[str, Any]], mask: str, prefix: str) -> tuple[int, Any]:
    paths = [path for path in mask.split(",") if path != "nextPageToken"]
    if any(path != path.strip() or not path for path in paths):
        return failure("INVALID_ARGUMENT", "Error expanding 'fields' parameter: no spaces, no empty paths.")
    shown = []
    for whole in objects:
        part: dict[str, Any] = {}
        for path in paths:
            steps = path.split(".")
            if prefix and path not in ("*", prefix) and steps.pop(0) != prefix:
                return _unknown(path)
            if path in ("*", prefix):
                part = dict(whole)
            elif not _copy_path(whole, part, steps):
                return _unknown(path)
        shown.append(part)
    if not prefix:
        return 200, shown[0]
    return 200, {prefix: shown} if shown else {}


def _copy_path(source: Mapping[str, Any], target: dict[str, Any], steps: Sequence[str]) -> bool:
    """Copy what is at ``steps``; False if there is no such field."""
    step, *rest = steps
    if step not in source:
        return False
    if not rest:
        target[step] = source[step]
        return True
    inner = source[step]
    return isinstance(inner, Mapping) and _copy_path(inner, target.setdefault(step, {}), rest)


def _unknown(path: str) -> tuple[int, Any]:
    message = f"Error expanding 'fields' parameter. Cannot find matching fields for path '{path}'."
    return failure("INVALID_ARGUMENT", message)
