"""Publish COUNT checked messages of very different sizes: produce.py URL QUEUE NAME COUNT."""

import hashlib
import sys

from kombu import Connection

from workflow_service.gateways.filesystem_broker import register

url, queue, producer, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
register()
with Connection(url) as connection:
    simple = connection.SimpleQueue(queue)
    for number in range(count):
        filling = f"{producer}{number}" * (number * number % 4000)
        digest = hashlib.sha256(filling.encode()).hexdigest()
        simple.put({"producer": producer, "number": number, "filling": filling, "digest": digest})
    simple.close()
