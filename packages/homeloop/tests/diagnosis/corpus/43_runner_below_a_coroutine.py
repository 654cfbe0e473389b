"""A property computes its value with a runner, below a coroutine.

class: NESTED_RUN
needs:
"""

import asyncio


class Model:
    async def _load(self):
        return {"weights": 3}

    @property
    def weights(self):
        with asyncio.Runner() as runner:
            return runner.run(self._load())["weights"]


async def main():
    print(Model().weights)


asyncio.run(main())
