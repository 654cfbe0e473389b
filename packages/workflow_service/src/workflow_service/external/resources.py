"""What the services of a process share: settings, cache, limits, and which addresses may be connected to."""

from workflow_service.external.addresses import AddressPolicy, LookUp, look_up
from workflow_service.external.answers import Answers
from workflow_service.external.attempts import Limits
from workflow_service.ports import AnswerCache
from workflow_service.settings import ExternalSettings, ServiceSettings


class ServiceResources:
    """Shared by all services, loops and threads of a process; there is nothing to close."""

    def __init__(
        self, settings: ExternalSettings, cache: AnswerCache | None = None, look_up: LookUp = look_up
    ) -> None:
        """Share what ``settings`` say; without ``cache`` every call asks the service; see `AddressPolicy`.

        Raises:
            ValueError: An entry of ``private_hosts`` is neither a host name nor a network.
        """
        self._settings = settings
        self.policy = AddressPolicy(settings.private_hosts, look_up)
        self.answers = Answers(cache)
        self._limits: dict[str, Limits] = {}

    def settings_of(self, service: str) -> ServiceSettings:
        """Return the settings of a service: all defaults where nothing is set."""
        return self._settings.services.get(service) or ServiceSettings()

    def limits_of(self, service: str) -> Limits:
        """Return what callers of a service share."""
        limits = self._limits.get(service)
        if limits is None:
            limits = self._limits.setdefault(service, Limits(self.settings_of(service)))
        return limits


class _Current:
    """The resources of services that are opened without any: ``async with service_class() as service``."""

    resources: ServiceResources | None = None


def set_current_resources(resources: ServiceResources) -> None:
    """Let services that are opened without resources share these; bootstrap says so in a worker."""
    _Current.resources = resources


def current_resources() -> ServiceResources:
    """Return the process's resources; if nobody has set any, those of the environment, without a cache."""
    resources = _Current.resources
    if resources is None:
        settings = ExternalSettings.from_environment()
        resources = _Current.resources = ServiceResources(settings)
    return resources
