"""Errors of worker processes: groups travel member by member, so that one that cannot cross costs no other."""

import pickle
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import isolated_work as work
import pytest

from homeloop import Isolation, IsolationExecutor
from homeloop.errors import RemoteError
from homeloop.isolation._packed_error import pack_error, unpack_error

WORKER = "worker process 1"
E = TypeVar("E", bound=BaseException)


@pytest.fixture
def carry(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Any]:
    """Take an error apart as a worker does that has no cloudpickle, and rebuild it as its caller does."""
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    return lambda error: unpack_error(pickle.loads(pickle.dumps(pack_error(error))), WORKER)


def raised(error: E, cause: BaseException | None = None) -> E:
    """Return an error that has a traceback, and perhaps a cause."""
    try:
        raise error from cause
    except BaseException:
        return error


def unknown(text: str) -> Exception:
    """Return an error of a class that nobody can import."""
    local: type[Exception] = type("Local", (Exception,), {"__qualname__": "unknown.<locals>.Local"})
    return local(text)


class Failures(ExceptionGroup[Exception]):
    """A group with a constructor and state of its own, as the documentation of Python has it."""

    code: int

    def __new__(cls, errors: Any, code: Any) -> "Failures":
        self = super().__new__(cls, f"failed with {code}", errors)
        self.code = code
        return self

    def __init__(self, errors: Any, code: Any) -> None:
        super().__init__(errors, code)

    def derive(self, excs: Any) -> Any:
        return Failures(excs, self.code)


def test_one_member_that_cannot_cross(carry: Callable[[BaseException], Any]) -> None:
    """The others are themselves, with causes, notes and tracebacks; that one is described; nesting is kept."""
    refused = raised(work.Refused("it", 7), KeyError("key"))
    refused.add_note("a member's note")
    inner = ExceptionGroup("inner", [raised(unknown("secret")), raised(ValueError("plain"))])
    group = raised(ExceptionGroup("outer", [refused, inner]), OSError("the cause"))
    group.add_note("the group's note")

    rebuilt = carry(group)

    assert type(rebuilt) is ExceptionGroup
    assert (rebuilt.message, str(rebuilt.__cause__)) == ("outer", "the cause")
    first, second = rebuilt.exceptions
    assert type(first) is work.Refused
    assert (first.what, first.code) == ("it", 7)
    assert isinstance(first.__cause__, KeyError)
    assert type(second) is ExceptionGroup
    stranger, plain = second.exceptions
    assert isinstance(stranger, RemoteError)
    assert stranger.kind.endswith("unknown.<locals>.Local")
    assert stranger.message == "secret"
    assert (type(plain), plain.args) == (ValueError, ("plain",))
    for error, own in ((rebuilt, "the group's note"), (first, "a member's note"), (plain, None)):
        *notes, trace = error.__notes__
        assert notes == ([] if own is None else [own])
        assert trace.startswith(f"traceback in {WORKER}:\n")
        assert "in raised" in trace
    assert "plain" not in rebuilt.__notes__[-1]  # each tells of its own place, once
    assert rebuilt.subgroup(ValueError) is not None


def test_groups_of_other_kinds(carry: Callable[[BaseException], Any]) -> None:
    """A subclass keeps state and constructor; one that cannot cross is a plain group; not all are Exceptions."""
    own = carry(Failures([ValueError("v"), unknown("u")], 3))
    assert type(own) is Failures
    assert (own.message, own.code) == ("failed with 3", 3)
    assert [type(error) for error in own.exceptions] == [ValueError, RemoteError]
    again = pickle.loads(pickle.dumps(own))
    assert (type(again), again.code, again.exceptions[0].args) == (Failures, 3, ("v",))

    local: Any = type("LocalGroup", (ExceptionGroup,), {})("local", [ValueError("v")])
    plain = carry(local)
    assert type(plain) is ExceptionGroup
    assert (plain.message, plain.exceptions[0].args) == ("local", ("v",))
    assert "LocalGroup" in plain.__notes__[0]

    base = carry(BaseExceptionGroup("base", [KeyboardInterrupt(), SystemExit(3)]))
    assert type(base) is BaseExceptionGroup
    assert [type(error) for error in base.exceptions] == [KeyboardInterrupt, SystemExit]


def test_errors_in_circles(carry: Callable[[BaseException], Any]) -> None:
    """A member that was raised out of its group has the group for its context: it is described there."""
    member = raised(ValueError("m"))
    group = raised(ExceptionGroup("g", [member, KeyError("k")]))
    member.__context__ = group
    rebuilt = carry(member)
    assert type(rebuilt) is ValueError
    context = rebuilt.__context__
    assert isinstance(context, ExceptionGroup)
    described, other = context.exceptions
    assert isinstance(described, RemoteError)
    assert (described.kind, described.message) == ("builtins.ValueError", "m")
    assert isinstance(other, KeyError)


def test_long_chains(carry: Callable[[BaseException], Any]) -> None:
    """However long the chain of causes or of groups, the error arrives; what is too deep is left out."""
    error: BaseException = ValueError("the first")
    for number in range(2_000):
        error = raised(ValueError(str(number)), error)
    rebuilt = carry(error)
    assert rebuilt.args == ("1999",)
    assert rebuilt.__cause__.args == ("1998",)
    nested: Any = ValueError("innermost")
    for number in range(300):
        nested = ExceptionGroup(str(number), [nested])
    assert carry(nested).message == "299"


def test_a_task_group_in_a_worker(executor: IsolationExecutor, go: Any) -> None:
    """The caller of a worker sorts the members by type, although one of them holds a lock."""
    with pytest.raises(ExceptionGroup) as caught:
        go(lambda: executor.run(work.fail_twice, isolation=Isolation.PROCESS))
    refused, others = caught.value.split(work.Refused)
    assert refused is not None
    assert others is not None
    keeper: Any = others.exceptions[0]
    assert isinstance(keeper, work.KeywordOnly)
    assert keeper.what == "that"
    assert "in refuse_keyword_only" in keeper.__notes__[-1]
