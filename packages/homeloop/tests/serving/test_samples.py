"""The samples about serving in the documents that started homeloop, as they are written there save the import."""

import textwrap
from typing import Any

import pytest

# from modelhub.serving import AsyncExecutor
USAGE = """
from homeloop.serving import AsyncExecutor

# Works correctly in all contexts now
result = AsyncExecutor.run_async(
    async_function,
    *args,
    timeout=30,
    **kwargs
)
"""


@pytest.mark.parametrize("where", ["module", "cell", "thread"])
def test_004_usage(where: str, script: Any) -> None:
    """At a program's top level, inside a running loop, and in a worker thread of one."""
    begin = "async def async_function(*args, **kwargs): return args, kwargs\nargs, kwargs = (1, 2), {'three': 3}\n"
    inside = f"def inside():\n{textwrap.indent(USAGE, '    ')}\n    return result\n"
    cell = "async def cell(): return inside()\n"
    ends = {
        "module": f"{begin}{USAGE}\nprint(result)",
        "cell": f"import asyncio\n{begin}{inside}{cell}print(asyncio.run(cell()))",
        "thread": f"import asyncio\n{begin}{inside}print(asyncio.run(asyncio.to_thread(inside)))",
    }
    ended = script(ends[where], timeout=60.0)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "((1, 2), {'three': 3})\n", "")
