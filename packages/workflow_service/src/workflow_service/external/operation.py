"""What an external service can be asked: an operation with the schema of its parameters."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing.jsonschema import EMPTY_REGISTRY

from workflow_service.domain.run import JsonObject
from workflow_service.ports import InvalidInputError

_SHOWN = 300  # characters of a message of jsonschema; it repeats the value


@dataclass(frozen=True)
class Operation:
    """An operation and the JSON Schema (2020-12, of an object) of its parameters.

    Say what it does in the schema's ``description``. An operation that changes something must say
    ``is_idempotent=False``: it is neither cached nor tried again once the provider may have worked on it.
    """

    params: JsonObject
    is_idempotent: bool = True

    def check(self, params: Any, place: str) -> None:  # Any: what a workflow made
        """Refuse parameters that the operation does not take.

        Raises:
            InvalidInputError: The message names the place in ``params``, what is wrong and what is expected.
        """
        found = best_match(self._validator.iter_errors(params))
        if found is not None:
            where = found.json_path.removeprefix("$")
            raise InvalidInputError(f"{place}{where}: {found.message[:_SHOWN]}")

    @cached_property
    def _validator(self) -> Draft202012Validator:
        # A registry of our own: without one jsonschema fetches what a $ref names, from any address.
        return Draft202012Validator(self.params, registry=EMPTY_REGISTRY)


def canonical(value: JsonObject) -> bytes:
    """Return JSON that is the same for equal values, whatever the order of their keys.

    Raises:
        InvalidInputError: The value is no JSON.
    """
    try:
        return json.dumps(
            value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":")
        ).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the parameters are no JSON: {error}") from None
