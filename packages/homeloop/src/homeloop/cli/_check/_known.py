"""Names of other people's code that the rules know: what lives on a loop, what starts one, what caches."""

CLIENTS: frozenset[str] = frozenset(
    (
        "aio_pika.connect",
        "aio_pika.connect_robust",
        "aiohttp.ClientSession",
        "aiohttp.TCPConnector",
        "aiokafka.AIOKafkaConsumer",
        "aiokafka.AIOKafkaProducer",
        "aiomysql.connect",
        "aiomysql.create_pool",
        "aiopg.create_pool",
        "anthropic.AsyncAnthropic",
        "asyncpg.connect",
        "asyncpg.create_pool",
        "asyncpg.pool.create_pool",
        "elasticsearch.AsyncElasticsearch",
        "grpc.aio.insecure_channel",
        "grpc.aio.secure_channel",
        "httpx.AsyncClient",
        "httpx2.AsyncClient",
        "langgraph.checkpoint.postgres.aio.AsyncPostgresSaver",
        "langgraph.checkpoint.sqlite.aio.AsyncSqliteSaver",
        "langgraph.store.postgres.aio.AsyncPostgresStore",
        "langgraph.store.postgres.AsyncPostgresStore",
        "langgraph.store.sqlite.aio.AsyncSqliteStore",
        "motor.motor_asyncio.AsyncIOMotorClient",
        "nats.connect",
        "neo4j.AsyncGraphDatabase.driver",
        "openai.AsyncAzureOpenAI",
        "openai.AsyncOpenAI",
        "opensearchpy.AsyncOpenSearch",
        "psycopg.AsyncConnection.connect",
        "psycopg_pool.AsyncConnectionPool",
        "pymongo.AsyncMongoClient",
        "qdrant_client.AsyncQdrantClient",
        "redis.asyncio.BlockingConnectionPool",
        "redis.asyncio.ConnectionPool",
        "redis.asyncio.ConnectionPool.from_url",
        "redis.asyncio.Redis",
        "redis.asyncio.Redis.from_url",
        "redis.asyncio.RedisCluster",
        "redis.asyncio.StrictRedis",
        "redis.asyncio.client.Redis",
        "redis.asyncio.from_url",
        "sqlalchemy.ext.asyncio.async_engine_from_config",
        "sqlalchemy.ext.asyncio.create_async_engine",
    )
)

PRIMITIVES: frozenset[str] = frozenset(
    f"asyncio.{name}"
    for name in (
        "Barrier",
        "BoundedSemaphore",
        "Condition",
        "Event",
        "Lock",
        "LifoQueue",
        "PriorityQueue",
        "Queue",
        "Semaphore",
    )
)

NEED_A_LOOP: frozenset[str] = frozenset(
    ("aiohttp.ClientSession", "aiohttp.TCPConnector", "asyncio.create_task", "asyncio.get_running_loop")
)
"""What raises where no loop runs."""

RUNS: frozenset[str] = frozenset(("anyio.run", "asyncio.run", "asyncio.runners.run", "uvloop.run"))

RUNNERS: dict[str, frozenset[str]] = {
    "run": frozenset(("asyncio.Runner", "asyncio.runners.Runner")),
    "run_until_complete": frozenset(("asyncio.new_event_loop", "uvloop.new_event_loop")),
}
"""Methods that run a coroutine on a loop, by what makes an object that has one of its own."""

WRAPPERS: tuple[str, ...] = ("asgiref.sync.AsyncToSync", "asgiref.sync.async_to_sync")
"""What makes a coroutine function one that starts a loop in every call."""

MANAGERS: frozenset[str] = frozenset(
    f"{name}.from_conn_string"
    for name in (
        "langgraph.checkpoint.mongodb.aio.AsyncMongoDBSaver",
        "langgraph.checkpoint.postgres.aio.AsyncPostgresSaver",
        "langgraph.checkpoint.postgres.shallow.AsyncShallowPostgresSaver",
        "langgraph.checkpoint.redis.aio.AsyncRedisSaver",
        "langgraph.checkpoint.redis.AsyncRedisSaver",
        "langgraph.checkpoint.sqlite.aio.AsyncSqliteSaver",
        "langgraph.store.postgres.AsyncPostgresStore",
        "langgraph.store.postgres.aio.AsyncPostgresStore",
        "langgraph.store.sqlite.aio.AsyncSqliteStore",
    )
)
"""Factories that return an async context manager, though they look as if they returned the object."""

CACHES: frozenset[str] = frozenset(
    (
        "cachetools.cached",
        "cachetools.func.lru_cache",
        "cachetools.func.ttl_cache",
        "functools.cache",
        "functools.lru_cache",
        "streamlit.cache_resource",
    )
)

CACHED_PROPERTIES: frozenset[str] = frozenset(
    (
        "celery.utils.cached_property",
        "django.utils.functional.cached_property",
        "functools.cached_property",
        "kombu.utils.cached_property",
    )
)
"""What keeps in an object what a method returned first."""

FIELDS: dict[str, str] = {
    "attr.ib": "factory",
    "attrs.field": "factory",
    "dataclasses.field": "default_factory",
    "pydantic.Field": "default_factory",
    "pydantic.PrivateAttr": "default_factory",
}
"""What declares an attribute, by the argument that makes its value for each object."""

SERVERS: frozenset[str] = frozenset(("fastapi.APIRouter", "fastapi.FastAPI", "fastapi.routing.APIRouter"))
"""Applications whose coroutine functions all run on the one loop of their server."""

LOOP_PER_CALL: frozenset[str] = frozenset(("flask.Blueprint", "flask.Flask"))
"""Applications whose coroutine functions run on a loop of their own, each time they are called."""

APPLICATIONS: frozenset[str] = SERVERS | LOOP_PER_CALL

ROUTES: frozenset[str] = frozenset(
    ("api_route", "delete", "get", "head", "options", "patch", "post", "put", "route")
)

CLOSINGS: frozenset[str] = frozenset(("aclose", "close", "disconnect", "dispose", "shutdown", "wait_closed"))

TOUCHES: dict[str, frozenset[str]] = {
    "asyncio.Condition": frozenset(("notify", "notify_all", "release")),
    "asyncio.Event": frozenset(("clear", "set")),
    "asyncio.LifoQueue": frozenset(("get_nowait", "put_nowait", "task_done")),
    "asyncio.Lock": frozenset(("release",)),
    "asyncio.PriorityQueue": frozenset(("get_nowait", "put_nowait", "task_done")),
    "asyncio.Queue": frozenset(("get_nowait", "put_nowait", "task_done")),
    "asyncio.Semaphore": frozenset(("release",)),
    "asyncio.BoundedSemaphore": frozenset(("release",)),
    "loop": frozenset(("call_at", "call_later", "call_soon", "create_future", "create_task")),
    "future": frozenset(("cancel", "set_exception", "set_result")),
}
"""Methods for the loop's own thread only, by what makes the object; a loop's and a future's names are ours."""
