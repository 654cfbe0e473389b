"""The culprit: what it is, deep inside of a value, that cannot be pickled."""

from collections.abc import Callable, Iterator
from functools import partial
from types import MethodType
from typing import Any, cast

_DEEPEST = 20  # steps into a value; a guess at more than anybody needs


def find_culprit(value: object, crosses: Callable[[object], bool]) -> tuple[str, object]:
    """
    Return the innermost part of a value that does not cross by itself, with the way to it as Python writes it.

    Args:
        value: Does not cross.
        crosses: Tells whether a part crosses by itself.

    Returns:
        The way, such as ``"['client'].lock"``, and the part; no way and the value, if nothing in it is to blame.
    """
    way = ""
    for _ in range(_DEEPEST):
        step = next(((step, part) for step, part in _parts(value) if not crosses(part)), None)
        if step is None:
            break
        way, value = way + step[0], step[1]
    return way, value


def type_name(value: object) -> str:
    """Name a value's type as errors name it."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# Any: whatever somebody's value has in it.
def _parts(value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, each in cast("dict[object, object]", value).items():
            yield f"[{key!r}]", each
    elif isinstance(value, list | tuple):
        for number, each in enumerate(cast("list[object]", value)):
            yield f"[{number}]", each
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    else:
        for name in _attributes(value):
            yield f".{name}", getattr(value, name, None)


def _attributes(value: Any) -> list[str]:
    """Name the attributes that pickle takes; none, if the type itself says what is taken."""
    kind = cast("Any", type(value))
    records = hasattr(kind, "__dataclass_fields__")
    says = ["__reduce_ex__", "__reduce__"] if records else ["__reduce_ex__", "__reduce__", "__getstate__"]
    if any(getattr(kind, name) is not getattr(object, name) for name in says):
        return []
    return [*kind.__dataclass_fields__] if records else [*getattr(value, "__dict__", ())]
