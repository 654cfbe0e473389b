"""A1, A4, A8: cells of a notebook, which run on the kernel's running loop, in a real kernel."""

from typing import Any

CELLS = """
import asyncio, os, sys
import httpx
import homeloop
from homeloop import LoopLocal
from homeloop.async_utils import ensure_single_event_loop
from homeloop.serving import AsyncExecutor

clients = LoopLocal(lambda: httpx.AsyncClient(base_url=os.environ["SITE"]))
kept = httpx.AsyncClient(base_url=os.environ["SITE"])

async def ask(number=0):
    async with clients() as client:
        return (await client.get("/")).json()

async def ask_kept():
    return (await kept.get("/")).json()

@ensure_single_event_loop()
async def protected():
    return await ask()
#%%
print("sync cell", homeloop.run(ask), AsyncExecutor.run_async(ask), protected())
#%%
print("await", await ask(), await homeloop.arun(ask))
#%%
print("function", (lambda: AsyncExecutor.run_async(ask))(), await asyncio.to_thread(AsyncExecutor.run_async, ask))
#%%
print("batch", AsyncExecutor.map_async(ask, range(100), concurrency=10) == ["ok"] * 100)
#%%
print("again", [AsyncExecutor.run_async(ask_kept) for _ in range(20)] == ["ok"] * 20)
#%%
task = asyncio.create_task(asyncio.sleep(0.001, "task of an earlier cell"))
answer = AsyncExecutor.run_async(ask)
#%%
print(await task)
#%%
print("loops", clients.statistics().opened, "nest_asyncio" in sys.modules, asyncio.run.__module__)
homeloop.run(kept.aclose)
"""
PRINTED = """\
sync cell ok ok ok
await ok ok
function ok ok
batch True
again True
task of an earlier cell
loops 2 False asyncio.runners
"""


def test_a4_cells_call_async_code_as_they_like(notebook: Any, site: Any) -> None:
    """Sync calls in a cell, awaits, functions, threads, batches; the kernel's loop has its tasks afterwards."""
    assert notebook(CELLS, SITE=site.url) == PRINTED
    site.wait_for_no_connection()
