"""External services: the providers that workflows ask over HTTP, and what plug-ins build on."""

from workflow_service.domain.external import ExternalServiceResponse
from workflow_service.external.faults import ServiceCallError
from workflow_service.external.google_places import GooglePlaces
from workflow_service.external.operation import Operation
from workflow_service.external.registry import ServiceRegistry
from workflow_service.external.resources import ServiceResources
from workflow_service.external.service import ExternalService, ServiceNotOpenError
from workflow_service.external.weatherapi import WeatherApi

__all__ = (
    "ExternalService",
    "ExternalServiceResponse",
    "GooglePlaces",
    "Operation",
    "ServiceCallError",
    "ServiceNotOpenError",
    "ServiceRegistry",
    "ServiceResources",
    "WeatherApi",
    "service_registry",
)

service_registry = ServiceRegistry([WeatherApi, GooglePlaces])
"""The process's registry."""
