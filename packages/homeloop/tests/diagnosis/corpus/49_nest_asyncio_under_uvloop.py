"""nest_asyncio's successor is applied to a loop that cannot be patched.

class: NEST_UNPATCHABLE
needs:
"""

import nest_asyncio2
import uvloop


async def main():
    nest_asyncio2.apply()


uvloop.run(main())
