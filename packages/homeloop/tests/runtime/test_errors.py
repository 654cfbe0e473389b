"""Every error says the same, with its notes, on the other side of a pickle; none is missing from the tree."""

import copy
import inspect
import pickle

import pytest
from celery import Celery

from homeloop import errors
from homeloop.errors import CallTimeoutError, HomeloopError, RuntimeClosedError

ALL = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, HomeloopError)]
SAMPLES = {"str": "text", "float": 1.5, "int": 3, "bool": True, "tuple[str, ...]": ("here", "there")}


def _sample(kind: type[HomeloopError]) -> HomeloopError:
    own = "__init__" in vars(kind)
    parameters = list(inspect.signature(kind).parameters.values()) if own else []
    fields = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert all(p.kind is not p.KEYWORD_ONLY for p in parameters)
    names = [getattr(p.annotation, "__name__", str(p.annotation)) for p in fields]
    return kind(*(SAMPLES.get(name.partition(" | ")[0], SAMPLES["tuple[str, ...]"]) for name in names))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickle_and_copy(kind: type[HomeloopError]) -> None:
    """Text, fields and notes are what they were."""
    error = _sample(kind)
    error.add_note("a note")
    for again in (*(pickle.loads(pickle.dumps(error, protocol)) for protocol in range(6)), copy.copy(error)):
        assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))
        assert again.__notes__ == ["a note"]


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_survives_celerys_result_backend(kind: type[HomeloopError], serializer: str) -> None:
    """Text and fields are what they were, as pickle and as JSON."""
    app = Celery("errors", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(result_serializer=serializer, accept_content=[serializer])
    error = _sample(kind)
    backend = app.backend
    again = backend.exception_to_python(backend.decode(backend.encode(backend.prepare_exception(error))))
    assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))


def test_every_error_is_exported_and_in_the_tree() -> None:
    """The module's ``__all__`` and the drawing at its top leave none out."""
    assert sorted(errors.__all__) == sorted(each.__name__ for each in ALL)
    assert list(errors.__all__) == sorted(errors.__all__)
    assert [
        each.__name__ for each in ALL if f"{each.__name__} " not in f"{errors.__doc__}".replace("\n", " ")
    ] == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CallTimeoutError("f()", 2.0), "f() did not finish within 2 s; it was cancelled and its clean-up has run"),
        (
            CallTimeoutError("f()", 2.0, ("a.py:1 in f",), (), True),
            "f() did not finish within 2 s; it was waiting at a.py:1 in f; "
            "it was abandoned and may still be running",
        ),
        (
            CallTimeoutError("f()", 2.0, (), ("b.py:2 in g", "b.py:3 in h"), False, "the loop did not take it"),
            "f() did not finish within 2 s; it never began: the loop did not take it, "
            "which is blocked at b.py:2 in g > b.py:3 in h",
        ),
        (RuntimeClosedError("etl"), "runtime 'etl' is closed; open another one"),
        (
            RuntimeClosedError("etl", True),
            "runtime 'etl' was dropped: nothing referred to it any more, which closes it; "
            "keep it in a variable as long as it has work",
        ),
    ],
)
def test_what_an_error_says(error: HomeloopError, text: str) -> None:
    """One truth per state, no contradiction."""
    assert str(error) == text
