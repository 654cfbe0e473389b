"""What WeatherAPI.com answers, for the places there are."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from workflow_service.testing.places import PLACES, Place, distance

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
"""The time at all places: it stands still, so that answers are the same."""

_NEAR = 100_000.0  # metres: coordinates farther away from every place fit none

ERRORS: Mapping[int, tuple[int, str]] = {
    1002: (401, "API key not provided."),
    1003: (400, "Parameter q is missing."),
    1005: (400, "API URL is invalid."),
    1006: (400, "No matching location found."),
    2006: (401, "API key is invalid."),
    2007: (403, "API key has exceeded calls per month quota."),
    2008: (403, "API key has been disabled."),
    2009: (403, "API key does not have access to the resource."),
    9999: (400, "Internal application error."),
}
"""The provider's codes: HTTP status and message."""


def answer(operation: str, query: Mapping[str, str]) -> tuple[int, Any]:  # Any: JSON
    """Return status and JSON of ``GET /v1/<operation>.json``; the key has been looked at."""
    wanted = query.get("q", "").strip()
    if not wanted:
        return failure(1003)
    if operation == "search":
        return 200, [_found(place) for place in _named(wanted)]
    place = _place(wanted)
    if place is None:
        return failure(1006)
    if operation == "current":
        return 200, {"location": _location(place), "current": _current(place, query.get("aqi") == "yes")}
    if operation == "alerts":
        return 200, {"location": _location(place), "alerts": {"alert": _alerts(place)}}
    if operation == "forecast":
        return _forecast(place, query)
    return failure(1005)


def failure(code: int) -> tuple[int, Any]:  # Any: JSON
    """Return status and JSON of an error."""
    status, message = ERRORS[code]
    return status, {"error": {"code": code, "message": message}}


def _named(text: str) -> Sequence[Place]:
    return [place for place in PLACES if place.name.lower().startswith(text.lower())]


def _place(wanted: str) -> Place | None:
    kind, _, rest = wanted.partition(":")
    if rest and kind in ("id", "iata"):
        return next((each for each in PLACES if rest.upper() in (str(each.id), each.iata)), None)
    try:
        latitude, longitude = map(float, wanted.split(","))
    except ValueError:
        name = wanted.partition(",")[0].strip()
        return next(iter(_named(name)), None)
    nearest = min(PLACES, key=lambda each: distance(latitude, longitude, each.latitude, each.longitude))
    metres = distance(latitude, longitude, nearest.latitude, nearest.longitude)
    return nearest if metres <= _NEAR else None


def _found(place: Place) -> Mapping[str, Any]:
    slug = "-".join([place.name, place.region, place.country]).lower().replace(" ", "-").replace(",", "")
    return {
        "id": place.id,
        "name": place.name,
        "region": place.region,
        "country": place.country,
        "lat": place.latitude,
        "lon": place.longitude,
        "url": slug,
    }


def _location(place: Place) -> Mapping[str, Any]:
    local = NOW.astimezone(ZoneInfo(place.tz_id))
    return {
        "name": place.name,
        "region": place.region,
        "country": place.country,
        "lat": place.latitude,
        "lon": place.longitude,
        "tz_id": place.tz_id,
        "localtime_epoch": int(NOW.timestamp()),
        "localtime": f"{local:%Y-%m-%d %H:%M}",
    }


def _condition(place: Place) -> Mapping[str, Any]:
    text, code = place.condition
    return {"text": text, "icon": "//cdn.weatherapi.com/weather/64x64/day/116.png", "code": code}


def _both(name: str, celsius: float) -> Mapping[str, float]:
    return {f"{name}_c": round(celsius, 1), f"{name}_f": round(celsius * 9 / 5 + 32, 1)}


def _air(place: Place) -> Mapping[str, Any]:
    quality = {"co": 233.6, "no2": 15.2, "o3": 46.1, "so2": 3.8, "pm2_5": 8.3, "pm10": 12.4}
    return {**quality, "us-epa-index": 1, "gb-defra-index": 1 + place.id % 3}


def _moment(place: Place, temp_c: float, at: datetime) -> Mapping[str, Any]:
    """Return what hours and «current» have in common."""
    wind = 6.1 + place.id % 20
    return {
        **_both("temp", temp_c),
        "is_day": 1 if 6 <= at.hour < 18 else 0,
        "condition": _condition(place),
        "wind_mph": round(wind / 1.609, 1),
        "wind_kph": wind,
        "wind_degree": 240,
        "wind_dir": "WSW",
        "pressure_mb": 1013.0,
        "pressure_in": 29.91,
        "precip_mm": 0.4,
        "precip_in": 0.02,
        "humidity": 65,
        "cloud": 40,
        **_both("feelslike", temp_c - 1.5),
        **_both("windchill", temp_c - 2.0),
        **_both("heatindex", temp_c),
        **_both("dewpoint", temp_c - 6.0),
        "vis_km": 10.0,
        "vis_miles": 6.0,
        "uv": 1.0,
        "gust_mph": round(wind * 1.5 / 1.609, 1),
        "gust_kph": round(wind * 1.5, 1),
    }


def _current(place: Place, with_air: bool) -> Mapping[str, Any]:
    local = NOW.astimezone(ZoneInfo(place.tz_id))
    updated = {"last_updated_epoch": int(NOW.timestamp()), "last_updated": f"{local:%Y-%m-%d %H:%M}"}
    air = {"air_quality": _air(place)} if with_air else {}
    return {**updated, **_moment(place, place.temp_c, local), **air}


def _forecast(place: Place, query: Mapping[str, str]) -> tuple[int, Any]:
    try:
        days = int(query.get("days", "1"))
        only = int(query["hour"]) if "hour" in query else None
    except ValueError:
        return failure(1005)
    today = NOW.astimezone(ZoneInfo(place.tz_id)).replace(hour=0, minute=0)
    forecast = [_day(place, today + timedelta(days=day), only) for day in range(max(1, min(days, 14)))]
    if "dt" in query:
        forecast = [day for day in forecast if day["date"] == query["dt"]]
    with_alerts = {"alerts": {"alert": _alerts(place)}} if query.get("alerts") == "yes" else {}
    with_air = query.get("aqi") == "yes"
    return 200, {
        "location": _location(place),
        "current": _current(place, with_air),
        "forecast": {"forecastday": forecast},
        **with_alerts,
    }


def _day(place: Place, midnight: datetime, only: int | None) -> Mapping[str, Any]:
    hours = [midnight + timedelta(hours=hour) for hour in range(24)]
    warmer = {at: place.temp_c + 3 - abs(at.hour - 14) / 2 for at in hours}
    temperatures = list(warmer.values())
    day = {
        **_both("maxtemp", max(temperatures)),
        **_both("mintemp", min(temperatures)),
        **_both("avgtemp", sum(temperatures) / len(temperatures)),
        "maxwind_mph": 9.4,
        "maxwind_kph": 15.1,
        "totalprecip_mm": 0.9,
        "totalprecip_in": 0.04,
        "totalsnow_cm": 0.0,
        "avgvis_km": 10.0,
        "avgvis_miles": 6.0,
        "avghumidity": 68,
        "daily_will_it_rain": 1,
        "daily_chance_of_rain": 70,
        "daily_will_it_snow": 0,
        "daily_chance_of_snow": 0,
        "condition": _condition(place),
        "uv": 1.0,
    }
    astro = {
        "sunrise": "07:58 AM",
        "sunset": "04:19 PM",
        "moonrise": "05:40 AM",
        "moonset": "01:07 PM",
        "moon_phase": "Waning Crescent",
        "moon_illumination": 11,
        "is_moon_up": 0,
        "is_sun_up": 1,
    }
    return {
        "date": f"{midnight:%Y-%m-%d}",
        "date_epoch": int(midnight.timestamp()),
        "day": day,
        "astro": astro,
        "hour": [
            {
                "time_epoch": int(at.timestamp()),
                "time": f"{at:%Y-%m-%d %H:%M}",
                **_moment(place, warmer[at], at),
                "snow_cm": 0.0,
                "will_it_rain": 0,
                "chance_of_rain": 0,
                "will_it_snow": 0,
                "chance_of_snow": 0,
            }
            for at in hours
            if only in (None, at.hour)
        ],
    }


def _alerts(place: Place) -> Sequence[Mapping[str, Any]]:
    if place.alert is None:
        return []
    return [
        {
            "headline": f"{place.alert} issued January 15 until January 16 for {place.name}",
            "msgtype": "Alert",
            "severity": "Severe",
            "urgency": "Expected",
            "areas": place.name,
            "category": "Met",
            "certainty": "Likely",
            "event": place.alert,
            "note": "",
            "effective": "2026-01-15T06:00:00-05:00",
            "expires": "2026-01-16T18:00:00-05:00",
            "desc": f"{place.alert} is in effect for {place.name}.",
            "instruction": "Avoid travelling; follow the instructions of the authorities.",
        }
    ]
