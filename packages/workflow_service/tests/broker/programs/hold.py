"""Take COUNT messages, acknowledge none, and stay: hold.py URL QUEUE COUNT."""

import signal
import sys

from kombu import Connection, Queue

from workflow_service.gateways.filesystem_broker import register

url, queue, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
register()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
held = []
with (
    Connection(url) as connection,
    connection.Consumer([Queue(queue)], callbacks=[lambda _, message: held.append(message)]),
):
    while len(held) < count:
        connection.drain_events()
    print("holding", flush=True)
    while True:
        signal.pause()
