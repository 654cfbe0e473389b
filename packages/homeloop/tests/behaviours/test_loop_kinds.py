"""The loop's own make does not matter: another policy, the debug mode."""

import pytest


def test_l01_under_the_uvloop_policy(script) -> None:
    """Works under the uvloop policy."""
    pytest.importorskip("uvloop")
    ended = script(
        """
import asyncio, uvloop
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
import homeloop
async def kind(): return type(asyncio.get_running_loop()) is uvloop.Loop
async def caller(): return await homeloop.arun(kind)
print(homeloop.run(kind), homeloop.submit(kind).result(30), asyncio.run(caller()))
print(homeloop.default_runtime().statistics().home.kind)
"""
    )
    assert (ended.returncode, ended.stdout.splitlines()) == (0, ["True True True", "uvloop.Loop"])


def test_l02_in_debug_mode(scenario) -> None:
    """Works in asyncio debug mode without warnings."""
    printed = scenario(
        """
async def debugging(): return asyncio.get_running_loop().get_debug()
async def fail(): raise ValueError("boom")
async def caller(): return await homeloop.arun(identity, 3)
async def outer(): return await asyncio.to_thread(homeloop.run, identity, 4)
print(homeloop.run(debugging), homeloop.run(identity, 1), homeloop.submit(identity, 2).result(30))
print(asyncio.run(caller()), homeloop.run(outer))
for call, options in ((fail, {}), (asyncio.Event().wait, {"timeout": 0.05})):
    try: homeloop.run(call, **options)
    except (ValueError, TimeoutError) as error: print(type(error).__name__)
homeloop.submit(asyncio.Event().wait).cancel()
local = homeloop.LoopLocal(asyncio.Event)
homeloop.run(local.get)
homeloop.default_runtime().close()
gc.collect()
""",
        PYTHONASYNCIODEBUG="1",
    )
    assert printed == ["True 1 2", "3 4", "ValueError", "CallTimeoutError"]
