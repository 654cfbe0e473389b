"""What can be wrong with a broker that lets us in, and who listens to it."""

from celery import Celery

_PING_TIMEOUT = 1.5  # seconds; who has not answered by then is counted as absent
_REDIS = ("redis://", "rediss://")


def answering_workers(broker_url: str) -> list[str]:
    """Return the names of the workers that answer a ping. Blocks for 1.5 s."""
    if broker_url.startswith("safefs://"):
        from workflow_service.gateways import filesystem_broker

        filesystem_broker.register()
    with Celery("workflow_service.doctor", broker=broker_url, set_as_current=False) as app:
        return [name for answer in app.control.ping(timeout=_PING_TIMEOUT) for name in answer]


def redis_faults(broker_url: str) -> list[tuple[str, str]]:
    """Return what is amiss with a Redis server, and what to do about it; nothing for other brokers. Blocks."""
    if not broker_url.startswith(_REDIS):
        return []
    import redis

    with redis.Redis.from_url(broker_url, socket_timeout=3.0, socket_connect_timeout=3.0) as client:
        try:
            policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "noeviction")
        except redis.RedisError:
            return []  # hosted ones forbid the question
    if policy == "noeviction":
        return []
    found = f"a full Redis evicts keys (maxmemory-policy {policy}): wake-ups vanish, runs wait to be sent again"
    return [(found, "set maxmemory-policy noeviction, or use a Redis for nothing but this")]
