"""A patched loop runs inside itself, as a notebook has it, and what it runs fails.

class: LOOKALIKE_NEST
needs:
"""

import asyncio

import nest_asyncio2

nest_asyncio2.apply()


async def inner(number):
    await asyncio.sleep(0.01)
    return 1 / number


def helper(number):
    return asyncio.get_event_loop().run_until_complete(inner(number))


async def outer():
    print(helper(1))
    return helper(0)


asyncio.run(outer())
