"""What the service itself raises; the messages are for the user."""

from collections.abc import Sequence

from workflow_service.domain.run import RunStatus


class ServiceError(Exception):
    """Root of what the service itself raises; the message is for the user."""


class InvalidInputError(ServiceError):
    """
    The request names an unknown workflow or carries input the workflow cannot take.

    Attributes:
        faults: What is wrong where, for who shows it beside a field: ``(place, message)``, where a place is a path
            from the request, such as ``"input_data.people[0].name"``. The error's text says the same in full.
    """

    def __init__(self, message: str, faults: Sequence[tuple[str, str]] = ()) -> None:
        """Say what is wrong, and where."""
        super().__init__(message, tuple(faults))
        self.faults = tuple(faults)

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])


class IdempotencyConflictError(ServiceError):
    """An idempotency key was used again for a different request."""


class UnsupportedMediaTypeError(ServiceError):
    """An uploaded file has a format that the service cannot read."""


class EmptyFileError(InvalidInputError):
    """An uploaded file has no bytes."""


class TooLargeError(ServiceError):
    """An uploaded file is larger than allowed."""


class StoreUnavailableError(ServiceError):
    """The database did not answer; the same request may succeed later."""


class InvalidSettingError(ServiceError):
    """A setting, or the file that it names, has no sense; the message says which and what to do."""


class DatabaseRightsError(ServiceError):
    """The role that the service connects as has too few rights, or so many that no policy binds it."""


class SchemaTooNewError(ServiceError):
    """The database was migrated by a newer release than this one."""


class RunStateError(ServiceError):
    """What is asked for cannot be done to a run in the status it has."""

    def __init__(self, message: str, status: RunStatus) -> None:
        super().__init__(message, status)
        self.message, self.status = message, status

    def __str__(self) -> str:
        return self.message


class RunTimeoutError(ServiceError):
    """An attempt at a run took longer than the run's options allow."""


class ProcessLostError(ServiceError):
    """The process of its own that a run worked in ended under it, or could not be started."""


class DrainedError(ServiceError):
    """A workflow was asked to end at a step boundary, and has."""


class ClaimLostError(ServiceError):
    """The run is no longer this attempt's: another has it, or it ended or was deleted. It writes no more."""


class QueueUnavailableError(ServiceError):
    """The broker did not take a message."""


class WorkflowError(ServiceError):
    """A workflow cannot do its work on this input."""


class UnreadableDocumentError(WorkflowError):
    """A file has no text that can be read."""


class ModelUnavailableError(WorkflowError):
    """The language model's provider did not answer."""
