"""Celery's settings as we would choose them for async tasks, each with its reason."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from homeloop.errors import ConfigurationError

Pool: TypeAlias = Literal["prefork", "threads", "solo", "gevent", "eventlet", "asyncio"]
Broker: TypeAlias = Literal["redis", "rabbitmq", "other"]

POOLS: tuple[Pool, ...] = ("prefork", "threads", "solo", "gevent", "eventlet", "asyncio")
BROKERS: tuple[Broker, ...] = ("redis", "rabbitmq", "other")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of Celery's: where it is recommended, and why. ``pools`` and ``brokers`` of () are all."""

    name: str
    value: object
    reason: str
    pools: tuple[Pool, ...] = ()
    brokers: tuple[Broker, ...] = ()

    def fits(self, pool: Pool, broker: Broker) -> bool:
        """Tell whether it is recommended for this pool and broker."""
        return (not self.pools or pool in self.pools) and (not self.brokers or broker in self.brokers)


SETTINGS = (
    Setting(
        "task_acks_late",
        True,
        "A message stays with the broker until its task has ended, so a killed worker loses none. Tasks may run "
        "again, and must bear it.",
    ),
    Setting(
        "task_reject_on_worker_lost",
        True,
        "Without it Celery acknowledges the message of a child that was killed, late or not, and stores a "
        "failure. A task that kills its child every time comes back for ever, unless recovery gives it up.",
        pools=("prefork",),
    ),
    Setting(
        "worker_cancel_long_running_tasks_on_connection_loss",
        True,
        "When the connection is lost the broker delivers what is not acknowledged to others. Coroutines can be "
        "cancelled, so they need not run twice.",
    ),
    Setting(
        "worker_prefetch_multiplier",
        1,
        "A worker reserves one message for each place (4 by default): the rest is for workers with free places.",
    ),
    Setting(
        "task_soft_time_limit",
        1500,
        "Seconds. A coroutine that waits for ever would hold its place for ever; this tells it in time to clean "
        "up. Enforced on every pool for async tasks.",
    ),
    Setting(
        "task_time_limit",
        1700,
        "Seconds. Ends what ignores the soft limit; less than any time after which a broker delivers again.",
    ),
    Setting(
        "broker_transport_options",
        {"visibility_timeout": 7200},
        "Seconds after which Redis gives an unacknowledged message to another worker, also if the first one still "
        "works on it: more than a hard limit, a wait in the worker and the longest countdown.",
        brokers=("redis",),
    ),
    Setting(
        "broker_transport_options",
        {"confirm_publish": True},
        "`apply_async` returns when RabbitMQ has the message, not before. RabbitMQ closes the channel of a task "
        "that is not acknowledged for 30 minutes, so the hard limit is shorter.",
        brokers=("rabbitmq",),
    ),
    Setting(
        "broker_connection_retry_on_startup",
        True,
        "A worker that starts before its broker waits for it; Celery 6 no longer does so by itself.",
    ),
    Setting(
        "result_backend_always_retry",
        True,
        "A result that cannot be stored at once is tried again; else a finished task has none.",
    ),
    Setting(
        "result_backend_max_retries",
        10,
        "By default it is tried for ever, and the thread, greenlet or child with it.",
    ),
    Setting(
        "worker_max_tasks_per_child",
        1000,
        "A new child now and then returns what a library has leaked. Each opens its connections anew: not often.",
        pools=("prefork",),
    ),
    Setting("worker_pool", "threads", "Chooses the pool.", pools=("threads",)),
    Setting("worker_pool", "solo", "Chooses the pool.", pools=("solo",)),
    Setting(
        "worker_pool",
        "homeloop.adapters.celery.pool:TaskPool",
        "Chooses the pool, without the variable CELERY_CUSTOM_WORKER_POOL.",
        pools=("asyncio",),
    ),
    Setting(
        "worker_concurrency",
        32,
        "A thread only waits for its coroutine. The default is the number of CPUs, too few for I/O.",
        pools=("threads",),
    ),
    Setting(
        "worker_concurrency",
        100,
        "A greenlet only waits for its coroutine. Choose the pool on the command line (`-P`), not in the "
        "settings: the process must be patched before anything is imported.",
        pools=("gevent", "eventlet"),
    ),
    Setting(
        "worker_concurrency",
        1000,
        "A waiting coroutine costs some kilobytes. What it waits for must bear as many: bound connection pools.",
        pools=("asyncio",),
    ),
)
"""In the order in which they are documented. Where it stands twice, a setting differs by pool or broker."""


class RecommendedConfig(Mapping[str, object]):
    """
    Settings for ``app.conf.update``, and why they are so; made by `recommended_config`.

    Attributes:
        reasons: By the setting's name: why we recommend it.
    """

    def __init__(self, settings: tuple[Setting, ...]) -> None:
        self._values = {each.name: each.value for each in settings}
        self.reasons: Mapping[str, str] = {each.name: each.reason for each in settings}

    def __getitem__(self, name: str) -> object:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __str__(self) -> str:
        return "\n".join(f"{name} = {value!r}  # {self.reasons[name]}" for name, value in self.items())


def recommended_config(pool: Pool = "prefork", broker: Broker = "redis") -> RecommendedConfig:
    """
    Return settings for async tasks: ``app.conf.update(recommended_config("threads", "redis"))``.

    Args:
        pool: The pool that workers run; "asyncio" is ours.
        broker: What carries the messages; "other" for neither Redis nor RabbitMQ.

    Raises:
        ConfigurationError: There is no such pool or broker.
    """
    if pool not in POOLS:
        raise ConfigurationError(f"there is no pool {pool!r}", f"choose one of {', '.join(POOLS)}")
    if broker not in BROKERS:
        raise ConfigurationError(f"there are no settings for broker {broker!r}", f"choose {', '.join(BROKERS)}")
    return RecommendedConfig(tuple(each for each in SETTINGS if each.fits(pool, broker)))
