"""Loaded by schemathesis: lets every other request that names a run or a document name one that is there."""

import itertools
import os
from uuid import UUID

import schemathesis

_PRESENT = {
    name: itertools.cycle(ids.split(","))
    for name in ("run_id", "document_id")
    if (ids := os.environ.get(f"FUZZ_{name}"))
}
_TURN = itertools.cycle((True, False))


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Replace ids that are well formed; what is malformed on purpose stays."""
    for name, present in _PRESENT.items():
        if path_parameters and _is_id(path_parameters.get(name)) and next(_TURN):
            path_parameters[name] = next(present)
    return path_parameters


def _is_id(value):
    try:
        return isinstance(value, str) and bool(UUID(value))
    except ValueError:
        return False
