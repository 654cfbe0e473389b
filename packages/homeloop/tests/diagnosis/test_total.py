"""Diagnosis never raises, never runs the program's code and ends, whatever the exception is made of."""

import asyncio
import itertools
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeloop import Diagnosis, detect_cross_loop_issue, diagnose

RAN: list[str] = []


class HostileMeta(type):
    """A class of classes that notices who asks."""

    def __getattribute__(cls, name: str) -> object:
        if name in ("__mro__", "__module__", "__qualname__", "__dict__", "__name__", "__class__"):
            RAN.append(f"meta {name}")
        return super().__getattribute__(name)

    def __instancecheck__(cls, instance: object) -> bool:
        RAN.append("instancecheck")
        raise ValueError("no")


class Hostile(metaclass=HostileMeta):
    """An object whose every method notices that it was called, and fails."""

    def __getattribute__(self, name: str) -> object:
        RAN.append(f"getattribute {name}")
        raise ValueError(name)

    def __eq__(self, other: object) -> bool:
        RAN.append("eq")
        raise ValueError("eq")

    def __hash__(self) -> int:
        RAN.append("hash")
        raise ValueError("hash")

    def __repr__(self) -> str:
        RAN.append("repr")
        raise ValueError("repr")

    def __bool__(self) -> bool:
        RAN.append("bool")
        raise ValueError("bool")

    def __len__(self) -> int:
        RAN.append("len")
        raise ValueError("len")


class HostileError(RuntimeError):
    """An exception that fails whoever looks at it."""

    def __getattribute__(self, name: str) -> object:
        RAN.append(f"error {name}")
        raise ValueError(name)

    def __str__(self) -> str:
        RAN.append("error str")
        raise ValueError("str")

    def __eq__(self, other: object) -> bool:
        RAN.append("error eq")
        raise ValueError("eq")

    __hash__ = RuntimeError.__hash__


WORDS = st.sampled_from(
    [
        "Event loop is closed",
        "no running event loop",
        "Task <Task> got Future <F> attached to a different loop",
        "x",
    ]
)
LEAVES: st.SearchStrategy[BaseException] = st.one_of(
    st.builds(RuntimeError, WORDS),
    st.builds(ValueError, st.binary()),
    st.builds(lambda: HostileError(Hostile())),
    st.builds(TimeoutError),
    st.builds(KeyboardInterrupt),
    st.builds(GeneratorExit),
)


def raised_by(error: BaseException, self: object, loop: object) -> BaseException:
    """Give an exception frames with the names that diagnosis looks for, and hostile variables."""

    async def aclose(self: object, loop: object) -> None:
        raise error

    def run(self: object, task: object) -> None:
        aclose(self, loop).send(None)

    def run_until_complete(self: object) -> None:
        run(self, loop)

    try:
        run_until_complete(self)
    except BaseException as caught:
        return caught
    raise AssertionError


def grow(children: st.SearchStrategy[BaseException]) -> st.SearchStrategy[BaseException]:
    groups = st.lists(children, min_size=1, max_size=4).map(lambda members: BaseExceptionGroup("group", members))
    return st.one_of(groups, st.builds(chain, children, children, st.booleans()))


def chain(outer: BaseException, inner: BaseException, as_cause: bool) -> BaseException:
    name = "__cause__" if as_cause else "__context__"
    BaseException.__setattr__(outer, name, inner)
    return outer


@settings(max_examples=150, deadline=None)
@given(
    errors=st.lists(st.recursive(LEAVES, grow, max_leaves=12), min_size=1, max_size=4),
    values=st.lists(st.sampled_from([Hostile, object, asyncio.Lock, lambda: None, dict]), min_size=2, max_size=2),
    cycle=st.booleans(),
)
def test_total(errors: list[BaseException], values: list[Callable[[], object]], cycle: bool) -> None:
    """Every exception is diagnosed or not, in peace; nobody's code is run for it."""
    for error in errors:
        raised_by(error, values[0](), values[1]())
    for outer, inner in itertools.pairwise(errors):
        BaseException.__setattr__(outer, "__context__", inner)
    if cycle:
        BaseException.__setattr__(errors[-1], "__cause__", errors[0])
    RAN.clear()
    diagnosis = diagnose(errors[0])
    assert RAN == []
    assert diagnosis is None or isinstance(diagnosis, Diagnosis)
    assert detect_cross_loop_issue(errors[0]) in (True, False)


@pytest.mark.parametrize("attribute", ["__cause__", "__context__"])
def test_long_chains(attribute: str) -> None:
    """A chain of a hundred thousand exceptions ends."""
    first = last = RuntimeError("Event loop is closed")
    for _ in range(100_000):
        inner = RuntimeError("Event loop is closed")
        BaseException.__setattr__(last, attribute, inner)
        last = inner
    assert diagnose(first) is None
    while first is not None:  # freed one by one: a deep chain would overflow the C stack of its own destructor
        first, rest = BaseException.__getattribute__(first, attribute), first
        BaseException.__setattr__(rest, attribute, None)


def test_deep_tracebacks() -> None:
    """A traceback of a thousand frames is read at both ends."""

    def dive() -> None:
        dive()

    with pytest.raises(RecursionError) as caught:
        dive()
    assert diagnose(caught.value) is None


def test_wide_groups() -> None:
    """A group of many exceptions is looked at in part."""
    assert diagnose(ExceptionGroup("wide", [ValueError(number) for number in range(50_000)])) is None


def faulty() -> BaseException:
    """Return an error that is a finding, wherever it stands."""
    with pytest.raises(RuntimeError) as caught:
        asyncio.get_running_loop()
    return caught.value


@pytest.mark.parametrize("position", [0, 50, 99])
def test_causes_of_members(position: int) -> None:
    """What a member of a large group came from is found, whichever it is; so is a member beside a long chain."""
    members = [ValueError(number) for number in range(100)]
    for number, member in enumerate(members):
        member.__cause__ = faulty() if number == position else KeyError(number)
    group = ExceptionGroup("wide", members)
    assert diagnose(group) is not None
    last: BaseException = ExceptionGroup("chained", [ValueError(), faulty()])
    first = last
    for _ in range(1000):
        inner = ValueError()
        last.__cause__ = inner
        last = inner
    assert diagnose(first) is not None


@pytest.mark.parametrize("notes", [("a",), "a", None, [Hostile()]])
def test_notes_of_any_kind(notes: object) -> None:
    """A finding is returned though it cannot be added as a note, and nobody's code is run for it."""
    error = faulty()
    error.__notes__ = notes  # type: ignore[assignment]
    RAN.clear()
    assert diagnose(error, note=True) is not None
    assert RAN == []
    assert notes == error.__notes__ if type(notes) is not list else len(error.__notes__) == 2


def test_no_exception_at_all() -> None:
    """What is no exception is no finding."""
    assert diagnose("Event loop is closed") is None  # type: ignore[arg-type]
    assert diagnose(None) is None  # type: ignore[arg-type]


def test_loaded_when_asked_for(script: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    """Who imports homeloop does not import the diagnosis; who asks for it gets it."""
    ended = script(
        """
        import sys
        import homeloop
        from homeloop.adapters import celery
        assert "homeloop.diagnosis" not in sys.modules
        assert homeloop.diagnose(ValueError()) is None
        assert "homeloop.diagnosis" in sys.modules
        from homeloop import Diagnosis, detect_cross_loop_issue
        try:
            homeloop.absent
        except AttributeError as error:
            print(error)
        """
    )
    assert ended.stdout == "module 'homeloop' has no attribute 'absent'\n", ended.stderr
