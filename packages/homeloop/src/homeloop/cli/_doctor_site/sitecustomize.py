"""Found first on the path of a program that runs under ``homeloop doctor``: watch it, then do as without us."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_HERE = str(Path(__file__).parent)


def _watch() -> None:
    try:
        from homeloop.cli._doctor_child import watch
    except ImportError:
        return  # another Python, which has no homeloop
    watch()


def _go_on() -> None:
    """Load the sitecustomize that this one hides, if there is one."""
    spec = PathFinder.find_spec("sitecustomize", [each for each in sys.path if each != _HERE])
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_watch()
_go_on()
