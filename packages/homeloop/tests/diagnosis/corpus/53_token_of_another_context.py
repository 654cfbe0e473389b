"""Look-alike: a context variable's token is used in another context.

class: LOOKALIKE_CONTEXT
needs:
"""

import asyncio
from contextvars import ContextVar

span = ContextVar("span")


async def traced():
    token = span.set("a")
    try:
        yield
    finally:
        span.reset(token)


async def main():
    generator = traced()
    await asyncio.create_task(anext(generator))
    await asyncio.create_task(generator.aclose())


asyncio.run(main())
