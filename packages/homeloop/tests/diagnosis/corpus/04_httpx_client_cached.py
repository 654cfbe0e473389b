"""A client behind lru_cache, its keep-alive connection used by the next run.

class: REUSE_ACROSS_RUNS
needs:
"""

import asyncio
from functools import lru_cache

import httpx
from _served import URL


@lru_cache
def client():
    return httpx.AsyncClient()


def fetch():
    return asyncio.run(client().get(URL)).text


print(fetch())
print(fetch())
