"""
Serve an application on an open socket: ``python bench/hosts FD APP``.

Not ``uvicorn --fd``: that takes the socket for a Unix one, so that asyncio leaves Nagle's algorithm on, and each
answer waits 40 ms for the client's acknowledgement.
"""

import socket
import sys

import uvicorn

_, number, app = sys.argv
listening = socket.socket(fileno=int(number))
config = uvicorn.Config(app, loop="asyncio", access_log=False, log_level="critical")
uvicorn.Server(config).run(sockets=[listening])
