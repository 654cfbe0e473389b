"""Write what comes, a line per message, until told to end: consume.py URL QUEUE FILE."""

import hashlib
import signal
import sys
from pathlib import Path

from kombu import Connection, Queue

from workflow_service.gateways.filesystem_broker import register

url, queue, lines = sys.argv[1], sys.argv[2], Path(sys.argv[3])
register()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def on_message(body, message):
    whole = hashlib.sha256(body["filling"].encode()).hexdigest() == body["digest"]
    print(body["producer"], body["number"], whole, message.delivery_info["redelivered"], file=file, flush=True)
    message.ack()


with (
    lines.open("w") as file,
    Connection(url) as connection,
    connection.Consumer([Queue(queue)], callbacks=[on_message]),
):
    print("ready", flush=True)
    while True:
        connection.drain_events()
