"""Which documents a run's input names, by the schema of the input: strings of format ``document-id``."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from workflow_service.domain.run import JsonObject


def named_documents(schema: JsonObject, value: Any, place: str) -> Iterator[tuple[str, UUID]]:  # Any: JSON
    """Yield ``(place, id)`` of each document that ``value`` names; ``place`` is where ``value`` stands.

    Properties and items are followed, as forms are made from them. What does not fit the schema names none.
    """
    if schema.get("format") == "document-id":
        try:
            yield place, UUID(value)
        except (ValueError, AttributeError, TypeError):
            return
    elif isinstance(value, Mapping):
        properties = schema.get("properties", {})
        for name, item in value.items():
            if isinstance(properties.get(name), Mapping):
                yield from named_documents(properties[name], item, f"{place}.{name}")
    elif isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for index, item in enumerate(value):
            yield from named_documents(schema["items"], item, f"{place}[{index}]")
