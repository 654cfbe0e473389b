"""What is installed for products: a function of each, found by the class of an object."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from homeloop._events import Event, emit

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

F = TypeVar("F")


class Products(Generic[F]):
    """
    The functions of one group of entry points; each is loaded when the first object of its product is seen.

    Args:
        group: Its entry points are named as the top-level packages of the products.
        failed: Makes the event that tells that one did not work, of the class's name and the error.

    Thread: any.
    """

    def __init__(self, group: str, failed: Callable[[str, str], Event]) -> None:
        self._group = group
        self._failed = failed
        self._installed: dict[str, EntryPoint] | None = None
        self._by_type: dict[type, F | None] = {}

    def of(self, kind: type) -> F | None:
        """Return the function for objects of a class; None if there is none, or it did not work."""
        if kind not in self._by_type:
            self._by_type[kind] = self._find(kind)
        return self._by_type[kind]

    def give_up(self, kind: type, error: Exception) -> None:
        """Tell that the function failed on an object of a class, and have none for that class from now on."""
        self._by_type[kind] = None
        emit(self._failed(class_name(kind), f"{type(error).__name__}: {error}"))

    def _find(self, kind: type) -> F | None:
        if self._installed is None:
            # What somebody else installs for a product comes after ours, and so instead of ours.
            from importlib.metadata import entry_points  # it loads email and datetime: not to import homeloop

            found = sorted(
                entry_points(group=self._group), key=lambda each: not each.value.startswith("homeloop.")
            )
            self._installed = {each.name: each for each in found}
        for base in kind.__mro__:
            entry = self._installed.get(base.__module__.partition(".")[0])
            if entry is not None:
                try:
                    return cast("F", entry.load())
                except Exception as error:
                    self.give_up(kind, error)
                    return None
        return None


def class_name(kind: type) -> str:
    """Return a class's module and name."""
    return f"{kind.__module__}.{kind.__qualname__}"
