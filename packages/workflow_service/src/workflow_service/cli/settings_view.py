"""Every setting of the service: its variable, its value, where that comes from, and what it means."""

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from workflow_service.gateways.servers import without_password
from workflow_service.local.errors import LocalError
from workflow_service.settings import OperationsSettings, Settings

T = TypeVar("T")

_HIDDEN = "***"


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


def read_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        LocalError: Some are missing or make no sense; the message has a line for each and says what to set.
    """
    return _checked(Settings.from_environment)


def read_operations() -> OperationsSettings:
    """Read those settings that all have a default: they are there before anybody has said where the servers are.

    Raises:
        LocalError: As `read_settings`.
    """
    return _checked(OperationsSettings)


def _checked(read: Callable[[], T]) -> T:
    try:
        return read()
    except ValidationError as error:
        faults = "\n".join(f"  {_place(each)}: {each['msg']}" for each in error.errors(include_input=False))
        raise LocalError(
            f"the settings cannot be used:\n{faults}\nset them in the environment or a file (--env-file); "
            "workflow-service --show-settings lists all"
        ) from None  # the original repeats values, secrets among them


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
            " ".join((field.description or "").split()),
        )


def _variable(name: str, field: FieldInfo) -> str:
    return field.alias or f"WORKFLOW_{name}".upper()


def _place(fault: Mapping[str, Any]) -> str:
    first, *inner = fault["loc"]
    field = Settings.model_fields.get(str(first))
    variable = str(first) if field is None else _variable(str(first), field)
    return "__".join((variable, *(str(part).upper() for part in inner)))


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
