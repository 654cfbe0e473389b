"""Every setting of the service: its variable, its value, where that comes from, and what it means."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from workflow_service.domain.predicates import predicate
from workflow_service.gateways.servers import without_password
from workflow_service.local.errors import LocalError
from workflow_service.settings import Settings

_HIDDEN = "***"
_JSON_FIELDS = frozenset({"api_keys", "private_hosts", "services", "webhook_secrets"})
"""Those whose variables hold JSON."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``value`` and ``default`` are as one writes them; what is secret is masked."""

    variable: str
    value: str
    source: str
    default: str
    meaning: str

    @property
    def is_default(self) -> bool:
        """Whether nobody set it."""
        return self.source == "default"


def read_settings(**own: str) -> Settings:
    """Read the settings from the environment; ``own`` are those, by name, that the caller has itself.

    Raises:
        LocalError: Some are missing or make no sense; the message has a line for each and says what to set.
    """
    try:
        return Settings(**own)  # type: ignore[arg-type]  # all of them are texts
    except ValidationError as error:
        faults = [_told(each) for each in error.errors(include_input=False)]
    except SettingsError:  # of the first that is no JSON; the other faults are not known before it is
        faults = list(_no_json())
    lines = "\n".join(f"  {fault}" for fault in faults)
    # Not "from": the originals repeat values, secrets among them.
    raise LocalError(
        f"the settings cannot be used:\n{lines}\nset them in the environment or a file (--env-file); "
        "workflow-service --show-settings lists all"
    )


def all_settings(settings: Settings | None, from_file: Collection[str] = ()) -> Iterator[Setting]:
    """Return every setting, by its variable; None says that they are not valid, and tells which are set.

    ``from_file`` are the variables that a file has put into the environment.
    """
    for name, field in sorted(Settings.model_fields.items(), key=lambda item: _variable(*item)):
        variable = _variable(name, field)
        default = "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        parts = [key for key in os.environ if key == variable or key.startswith(f"{variable}__")]
        is_set = bool(parts)
        sources = sorted({"file" if key in from_file else "environment" for key in parts})
        value = (
            _shown(getattr(settings, name)) if settings is not None else "set, not valid" if is_set else default
        )
        yield Setting(
            variable,
            value,
            " and ".join(sources) or "default",
            default,
            f"{_meaning(field)}.",
        )


def _variable(name: str, field: FieldInfo) -> str:
    return field.alias or f"WORKFLOW_{name}".upper()


def _told(fault: Mapping[str, Any]) -> str:
    """Return what is wrong with which variable, and what it is for."""
    message = predicate(fault["type"], str(fault["msg"]))
    if not fault["loc"]:  # of several together: the message names them
        return message
    first, *inner = map(str, fault["loc"])
    name, field = next(each for each in Settings.model_fields.items() if first in (each[0], _variable(*each)))
    place = _variable(name, field)
    if name == "services":  # what is nested in it has variables of its own
        place = "__".join((place, *map(str.upper, inner)))
    elif name in _JSON_FIELDS:
        place = ".".join((place, *inner))
    return f"{place} {message} ({_meaning(field)})"


def _no_json() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        variable = _variable(name, field)
        if name in _JSON_FIELDS and os.environ.get(variable):
            try:
                json.loads(os.environ[variable])
            except ValueError as error:
                yield f"{variable} is no JSON: {str(error).partition(':')[0]} ({_meaning(field)})"


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).replace("``", "`").removesuffix(".")


def _shown(value: object) -> str:
    if isinstance(value, str):
        return without_password(value) if "://" in value else value
    return (
        json.dumps(_plain(value), ensure_ascii=False)
        if isinstance(value, Mapping | list | tuple)
        else str(_plain(value))
    )


def _plain(value: object) -> Any:  # Any: JSON
    if isinstance(value, SecretStr):
        return _HIDDEN if value.get_secret_value() else ""
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in sorted(value.model_fields_set)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)
