"""A signal stops the loop while main() waits.

class: LOOP_STOPPED_EARLY
needs:
"""

import asyncio
import os
import signal

loop = asyncio.new_event_loop()
loop.add_signal_handler(signal.SIGUSR1, loop.stop)
loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
loop.run_until_complete(asyncio.sleep(30))
