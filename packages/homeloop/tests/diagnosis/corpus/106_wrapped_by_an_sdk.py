"""An SDK's own error hides that its kept client belongs to the run before.

class: REUSE_ACROSS_RUNS
needs:
"""

import asyncio

import httpx
from _served import URL


class APIConnectionError(Exception):
    pass


class Sdk:
    def __init__(self):
        self.http = httpx.AsyncClient()

    async def ask(self):
        try:
            return (await self.http.get(URL)).text
        except Exception as error:
            raise APIConnectionError("Connection error.") from error


sdk = Sdk()
for _ in range(2):
    print(asyncio.run(sdk.ask()))
