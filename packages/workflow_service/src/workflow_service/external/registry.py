"""Which external services there are: those that ship, those of plug-ins, and those a program registers."""

import inspect
import logging
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TypeVar

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from workflow_service.external.operation import Operation
from workflow_service.external.service import ExternalService
from workflow_service.ports import InvalidInputError

GROUP = "workflow_service.external_services"
"""The entry points of plug-ins: ``name = "package.module:ClassName"``."""

S = TypeVar("S", bound=type[ExternalService])

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

_logger = logging.getLogger(__name__)


class ServiceRegistry:
    """Finds external services by name. Plug-ins are loaded at the first look; a broken one harms no other."""

    def __init__(self, services: Iterable[type[ExternalService]] = (), *, group: str | None = GROUP) -> None:
        """Hold ``services`` and, at the first look, those of the entry points ``group``."""
        self._services: dict[str, type[ExternalService]] = {}
        self._broken: dict[str, str] = {}
        self._group = group
        for service in services:
            self.register(service)

    def register(self, service: S) -> S:
        """Add a service; usable as a decorator of its class.

        Raises:
            TypeError: It is no `ExternalService` that could be made and described; the message says what to write.
            ValueError: Another service has its name.
        """
        _check(service)
        there = self._services.get(service.name)
        if there is not None and there is not service:
            raise ValueError(f"there is an external service {service.name!r} already: {there.__qualname__}")
        self._services[service.name] = service
        return service

    def get_service(self, name: str) -> type[ExternalService]:
        """Return the class of a service: ``async with registry.get_service(name)() as service``.

        Raises:
            InvalidInputError: There is no such service, or its plug-in cannot be loaded; the message says which.
        """
        self._load_plugins()
        service = self._services.get(name)
        if service is not None:
            return service
        if name in self._broken:
            raise InvalidInputError(f"external service {name!r} cannot be used: {self._broken[name]}")
        known = ", ".join(sorted(self._services)) or "none"
        raise InvalidInputError(f"there is no external service {name!r}; known: {known}")

    def services(self) -> Mapping[str, type[ExternalService]]:
        """Return all services by name, those of plug-ins included."""
        self._load_plugins()
        return MappingProxyType(dict(sorted(self._services.items())))

    def broken(self) -> Mapping[str, str]:
        """Return the plug-ins that cannot be used, by name, and why."""
        self._load_plugins()
        return MappingProxyType(dict(self._broken))

    def _load_plugins(self) -> None:
        if self._group is None:
            return
        group, self._group = self._group, None
        for plugin in entry_points(group=group):
            try:
                self.register(_loaded(plugin))
            except Exception as error:
                origin = plugin.dist.name if plugin.dist else "?"
                reason = f"plug-in {plugin.value} of {origin}: {type(error).__name__}: {error}"
                self._broken[plugin.name] = reason
                _logger.warning("external service %r cannot be used: %s", plugin.name, reason)


def _loaded(plugin: EntryPoint) -> type[ExternalService]:
    service: type[ExternalService] = plugin.load()
    _check(service)
    if service.name != plugin.name:
        raise ValueError(f"its class names itself {service.name!r}; give the entry point that name")
    return service


def _check(service: object) -> None:
    if not (isinstance(service, type) and issubclass(service, ExternalService)):
        raise TypeError(f"register the class, derived from ExternalService, not {service!r}")
    if inspect.isabstract(service):
        missing = ", ".join(sorted(service.__abstractmethods__))
        raise TypeError(f"{service.__qualname__} must define {missing}")
    for attribute in ("name", "description", "base_url", "operations"):
        if not getattr(service, attribute, None):
            raise TypeError(f"{service.__qualname__}.{attribute} must be set")
    if not _NAME.fullmatch(service.name):
        raise TypeError(f"{service.__qualname__}.name must be like weather_api, got {service.name!r}")
    for name, operation in service.operations.items():
        if not isinstance(operation, Operation):
            raise TypeError(f"{service.__qualname__}.operations[{name!r}] must be an Operation, got {operation!r}")
        try:
            Draft202012Validator.check_schema(operation.params)
        except SchemaError as error:
            place = f"{service.__qualname__}.operations[{name!r}].params"
            raise TypeError(f"{place} is no JSON Schema: {error.message}") from None
