"""The options of the documents that started homeloop, and the tier that they mean."""

from collections.abc import Mapping

from homeloop import Isolation

DEFAULTS: Mapping[str, bool] = {
    "use_process_isolation": False,
    "use_thread_isolation": True,
    "use_forced_thread_isolation": True,
}


def isolation_from_options(options: Mapping[str, object] | None = None) -> Isolation:
    """
    Return the tier that analysis options ask for; without any it is `Isolation.THREAD`.

    ``use_process_isolation`` goes before all else. Without ``use_thread_isolation`` there is no isolation. With
    it the tier is thread, or context if ``use_forced_thread_isolation`` is false.

    Args:
        options: May hold other things, too.

    Raises:
        TypeError: An option is not a bool: the text ``"false"`` would count as true.
    """
    chosen = {**DEFAULTS, **{name: value for name, value in (options or {}).items() if name in DEFAULTS}}
    for name, value in chosen.items():
        if not isinstance(value, bool):
            raise TypeError(f"option {name!r} must be true or false, got {value!r}")
    if chosen["use_process_isolation"]:
        return Isolation.PROCESS
    if not chosen["use_thread_isolation"]:
        return Isolation.NONE
    return Isolation.THREAD if chosen["use_forced_thread_isolation"] else Isolation.CONTEXT
