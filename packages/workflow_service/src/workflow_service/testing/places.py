"""A handful of places with made-up weather and made-up telephone numbers; the same at every start."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Spot:
    """Something of a place that can be found: a hospital, a police station."""

    id: str
    name: str
    type: str
    phone: str
    address: str
    latitude: float
    longitude: float
    ratings: int


@dataclass(frozen=True, slots=True)
class Place:
    """A city."""

    id: int
    name: str
    region: str
    country: str
    country_code: str
    latitude: float
    longitude: float
    tz_id: str
    iata: str
    temp_c: float
    condition: tuple[str, int]
    alert: str | None = None
    spots: tuple[Spot, ...] = field(default_factory=tuple)


_KINDS = (  # type, name, how far north and east in degrees, ratings
    ("hospital", "General Hospital", 0.008, 0.004, 412),
    ("hospital", "University Hospital", -0.021, 0.017, 1280),
    ("police", "Central Police Station", 0.003, -0.006, 96),
    ("fire_station", "Fire Station 1", -0.005, -0.009, 41),
    ("pharmacy", "Night Pharmacy", 0.001, 0.002, 233),
    ("restaurant", "Corner Restaurant", 0.002, -0.001, 890),
)


def _spots(name: str, code: str, latitude: float, longitude: float, phone: str) -> tuple[Spot, ...]:
    return tuple(
        Spot(
            id=f"ChIJ{code}{number:02d}-{kind}",
            name=f"{name} {title}",
            type=kind,
            phone=f"{phone}{number:02d}",
            address=f"{number} Market Street, {name}",
            latitude=round(latitude + north, 6),
            longitude=round(longitude + east, 6),
            ratings=ratings,
        )
        for number, (kind, title, north, east, ratings) in enumerate(_KINDS, start=1)
    )


def _place(  # the columns of the table below
    number: int,
    name: str,
    region: str,
    country: tuple[str, str],
    where: tuple[float, float],
    tz_id: str,
    iata: str,
    temp_c: float,
    condition: tuple[str, int],
    phone: str,
    alert: str | None = None,
) -> Place:
    spots = _spots(name, iata, *where, phone)
    return Place(number, name, region, *country, *where, tz_id, iata, temp_c, condition, alert, spots)


# The telephone numbers are of ranges that are kept for fiction, where a country has one.
PLACES: Sequence[Place] = (
    _place(2801268, "London", "City of London, Greater London", ("United Kingdom", "GB"), (51.5171, -0.1062),
           "Europe/London", "LHR", 11.0, ("Partly cloudy", 1003), "+44 20 7946 09"),
    _place(578870, "Berlin", "Berlin", ("Germany", "DE"), (52.5167, 13.4),
           "Europe/Berlin", "BER", 3.5, ("Light snow", 1213), "+49 30 23125 0"),
    _place(2618724, "New York", "New York", ("United States of America", "US"), (40.7142, -74.0064),
           "America/New_York", "JFK", -2.0, ("Blizzard", 1117), "+1 212 555 01", "Blizzard Warning"),
    _place(2801724, "Miami", "Florida", ("United States of America", "US"), (25.7739, -80.1939),
           "America/New_York", "MIA", 27.5, ("Patchy rain nearby", 1063), "+1 305 555 01", "Flood Watch"),
    _place(1138958, "Tokyo", "Tokyo", ("Japan", "JP"), (35.6895, 139.6917),
           "Asia/Tokyo", "HND", 8.2, ("Sunny", 1000), "+81 3 5550 01"),
    _place(1164909, "Nairobi", "Nairobi Area", ("Kenya", "KE"), (-1.2833, 36.8167),
           "Africa/Nairobi", "NBO", 22.1, ("Clear", 1000), "+254 20 55501"),
)  # fmt: skip


def distance(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Return the metres between two points."""
    north, other_north = math.radians(latitude), math.radians(other_latitude)
    half = (other_north - north) / 2, math.radians(other_longitude - longitude) / 2
    chord = math.sin(half[0]) ** 2 + math.cos(north) * math.cos(other_north) * math.sin(half[1]) ** 2
    return 2 * 6_371_000 * math.asin(math.sqrt(chord))
