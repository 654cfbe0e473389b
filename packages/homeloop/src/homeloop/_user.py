"""The user on whose behalf code runs: carried by context, as every call of homeloop carries it."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class User:
    """
    Who somebody is.

    Attributes:
        id: Never empty: an empty setting is PostgreSQL's word for none.
        claims: What else is known of the user and may decide what the user may see, such as a tenant.
    """

    id: str
    claims: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):  # pyright: ignore[reportUnnecessaryIsInstance] - not every caller is checked
            raise TypeError(f"a user's id is a str, not {self.id!r}")
        if not self.id:
            raise ValueError("a user's id must not be empty")


_current: ContextVar[User | None] = ContextVar("homeloop_user", default=None)


def current_user() -> User | None:
    """Return the user on whose behalf the calling code runs; None if nobody said."""
    return _current.get()


@contextmanager
def as_user(user: User | str | None) -> Generator[User | None]:
    """
    Run the block on behalf of a user, of the user with this id, or (None) of nobody.

    Tasks started in the block, and calls through homeloop, take the user along; other tasks and
    threads see nothing of it. Afterwards the user is whoever it was before.
    """
    someone = user if user is None or isinstance(user, User) else User(user)
    token = _current.set(someone)
    try:
        yield someone
    finally:
        _current.reset(token)
