"""
What pytest loads of homeloop at its start: the option, the settings and the marker. All else comes with them.

It is a module of its own because importing anything of the package would import all of it, in every run of
pytest of everybody who has homeloop installed.
"""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option, and the settings of the same names."""
    group = parser.getgroup("homeloop", "event loops")
    group.addoption(
        "--homeloop",
        action="store_true",
        help="fail tests that use another loop's objects, or leave tasks, threads, loops or pools behind",
    )
    parser.addini("homeloop", "as --homeloop", type="bool", default=False)
    parser.addini(
        "homeloop_allow", "what all tests may do: uses, tasks, threads, loops, pools", type="args", default=[]
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and load the plugin if it is asked for."""
    config.addinivalue_line(
        "markers",
        "homeloop(allow=[...]): what this test may do under --homeloop: uses, tasks, threads, loops, pools",
    )
    if config.getoption("--homeloop") or config.getini("homeloop"):
        from homeloop.pytest_plugin import StrictLoops

        config.pluginmanager.register(StrictLoops(config), "homeloop-strict")
