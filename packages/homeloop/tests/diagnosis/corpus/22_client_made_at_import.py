"""A connector, made where no loop runs.

class: NO_CURRENT_LOOP
needs:
"""

import aiohttp

connector = aiohttp.TCPConnector(limit=10)
