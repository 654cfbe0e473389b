"""Rules on what code uses: objects that belong to another loop, whatever the message says."""

from collections.abc import Iterator
from typing import Any

from homeloop.diagnosis._chain import Link
from homeloop.diagnosis._codes import Kind
from homeloop.diagnosis._frames import LOOP_MODULES, NO_LOOP, Frame
from homeloop.diagnosis._judgement import (
    Channel,
    Confidence,
    Judgement,
    foreign,
    in_context,
    inherited,
    is_future,
    relation,
)
from homeloop.diagnosis._reading import is_loop, kind_name, kinds, owner_loop, stored
from homeloop.diagnosis._rules_running import is_timer, timer_loop

_SCHEDULING = frozenset(
    ("create_task", "run_in_executor", "call_soon_threadsafe", "run_until_complete", "run_forever")
)
_MAX_ATTRIBUTES = 50
_MAX_FRAMES = 50  # innermost ones

_DRIVERS = frozenset(
    (
        "aio_pika",
        "aioboto3",
        "aiobotocore",
        "aiochclient",
        "aiohttp",
        "aiokafka",
        "aiomysql",
        "aioodbc",
        "aiopg",
        "aiormq",
        "aiosmtplib",
        "aiosqlite",
        "anthropic",
        "asyncmy",
        "asyncpg",
        "asyncssh",
        "clickhouse_connect",
        "coredis",
        "elastic_transport",
        "grpc",
        "grpclib",
        "httpcore",
        "httpcore2",
        "httpx",
        "httpx2",
        "langgraph",
        "motor",
        "nats",
        "neo4j",
        "openai",
        "oracledb",
        "psycopg",
        "psycopg_pool",
        "pymongo",
        "qdrant_client",
        "redis",
        "sqlalchemy",
        "temporalio",
        "valkey",
        "websockets",
    )
)
"""Products whose objects do I/O on the loop they name; an application's own class may name one for any reason."""


def primitive(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """A lock or queue that is bound to another loop: it compared the two itself."""
    last = link.last
    if last is None or last.module != "asyncio.mixins" or last.function != "_get_loop" or not last.raised_here:
        return None
    thing, current = last.owner, last.variables.get("loop")
    owner = owner_loop(thing)
    kind = relation(thing, owner, links)
    kind = in_context(kind, link, last, channel, links)
    return Judgement(kind, "high", "its loop and the running loop are two", link, thing, owner, current, last)


def closed_loop(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """A closed loop was asked for something: by an object that lives on it, or by one that kept it."""
    last = link.last
    if last is None or not link.is_plain_runtime_error:
        return None
    native = last.native and last.module == "uvloop.loop"
    if last.function == "_check_default_executor":
        if last.module not in LOOP_MODULES or not last.raised_here:
            return None
    elif last.function != "_check_closed" or not (native or (last.module in LOOP_MODULES and last.raised_here)):
        return None
    owner = None if native else last.owner
    thing, user = _caller_of_loop(link, owner)
    current = None if last.loop is NO_LOOP or last.loop is owner else last.loop
    kind = Kind.FORK_INHERITED if inherited(thing, owner) else Kind.REUSE_ACROSS_RUNS
    if kind is Kind.REUSE_ACROSS_RUNS and _asked_to_work(link):
        kind = Kind.LOOP_CAPTURED
    kind = in_context(kind, link, last, channel, links)
    evidence = "the loop that was asked is closed; it is not the one that runs"
    return Judgement(kind, "high", evidence, link, thing, owner, current, user)


def _caller_of_loop(link: Link, owner: Any) -> tuple[object, Frame | None]:
    """Return the object that asked the loop, and its frame."""
    for frame in reversed(link.frames):
        if frame.module in LOOP_MODULES or frame.native:
            thing = frame.owner
            if thing is not None and thing is not owner and not is_loop(thing):
                return thing, frame
            continue
        return frame.owner, frame
    return None, link.last


def _asked_to_work(link: Link) -> bool:
    """Say whether the loop was asked to start work by somebody other than its own transports."""
    for frame in reversed(link.frames):
        if frame.function in _SCHEDULING and frame.owner is not None and is_loop(frame.owner):
            return True
        if frame.module == "asyncio.tasks" and frame.function == "run_coroutine_threadsafe":
            return True
        if frame.native and frame.function in _SCHEDULING:
            return True
        if not frame.module.startswith("asyncio.") and not frame.native:
            return False
    return False


def attached(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """A task was given a future of another loop: the loop threw the error in where the coroutine awaits."""
    last = link.last
    if last is None or type(link.error) not in (RuntimeError, ValueError):
        return None
    if type(link.error) is ValueError:
        gathers = last.module == "asyncio.tasks" and last.function in ("_ensure_future", "ensure_future", "gather")
        if not (gathers and last.raised_here):
            return None
    elif not ((last.awaiting or last.native) and link.message.endswith("attached to a different loop")):
        return None
    current = None if last.loop is NO_LOOP else last.loop
    for frame in link.frames[: -_MAX_FRAMES - 1 : -1]:
        for thing, owner in _owned(frame, current):
            thing = _whole(link, owner, thing)
            kind = in_context(relation(thing, owner, links), link, frame, channel, links)
            confidence: Confidence = "high" if current is not None else "medium"
            evidence = "an object in these frames belongs to another loop than the one that runs them"
            return Judgement(kind, confidence, evidence, link, thing, owner, current, frame)
    if not any(f"{frame.file}:{frame.line}>" in link.message for frame in link.frames):
        return None  # the loop's own message names the line where its task waits; these are somebody else's words
    kind = in_context(Kind.REUSE_ACROSS_RUNS, link, last, channel, links)
    evidence = "the loop threw the error in at an await; the object itself is not in sight"
    return Judgement(kind, "low", evidence, link, None, None, current, last)


def background(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """A pool timed out whose own tasks live on another loop."""
    if not any(kind_name(kind)[1].endswith(("Timeout", "TimeoutError")) for kind in kinds(link.error)):
        return None
    for frame in reversed(link.after_user):
        if frame.owner is None or frame.is_standard or is_future(frame.owner):
            continue
        current = None if frame.loop is NO_LOOP else frame.loop
        for task in _tasks_of(frame.owner):
            owner = owner_loop(task)
            if not foreign(owner, current):
                continue
            kind = relation(frame.owner, owner, links)
            if kind is Kind.TWO_LIVE_LOOPS:
                kind = in_context(kind, link, frame, channel, links)
            elif kind is not Kind.FORK_INHERITED:
                kind = Kind.DEAD_BACKGROUND_WORKER
            evidence = "the pool's own background tasks belong to another loop than the one that waits"
            return Judgement(kind, "high", evidence, link, frame.owner, owner, current, frame)
    return None


def _tasks_of(holder: object) -> Iterator[object]:
    for value in list(stored(holder).values())[:_MAX_ATTRIBUTES]:
        for each in list(value)[:20] if type(value) in (list, tuple, set, frozenset) else (value,):
            if is_future(each):
                yield each


def belongs_elsewhere(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """A library failed inside an object that belongs to another loop than the one that runs it."""
    last = link.last
    if last is None or last.is_user or not issubclass(type(link.error), Exception):
        return None
    for frame in link.after_user:
        thing = frame.owner
        if thing is None or not frame.is_async or frame.top not in _DRIVERS:
            continue
        current = None if frame.loop is NO_LOOP else frame.loop
        owners = [owner for value, owner in _owned(frame, current) if value is thing]
        if current is not None and owners:
            kind = in_context(relation(thing, owners[0], links), link, frame, channel, links)
            evidence = "the object whose method failed belongs to another loop than the one that runs it"
            return Judgement(kind, "medium", evidence, link, thing, owners[0], current, frame)
        owner = owner_loop(thing)
        if owner is not None and inherited(thing, owner):
            evidence = "the object was made in another process, before a fork"
            return Judgement(Kind.FORK_INHERITED, "high", evidence, link, thing, owner, current, frame)
    return None


def timer(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """A timer of one loop asks another loop's task."""
    last = link.last
    if last is None or not link.is_plain_runtime_error or not last.raised_here or not is_timer(last):
        return None
    owner = timer_loop(last)
    if not foreign(owner, last.loop):
        return None
    kind = in_context(relation(last.owner, owner, links), link, last, channel, links)
    evidence = "the timer belongs to another loop than the one that runs"
    return Judgement(kind, "high", evidence, link, _whole(link, owner, last.owner), owner, last.loop, last)


def _whole(link: Link, owner: Any, thing: object) -> object:
    """Prefer the object that the program called (a pool) to the part that failed (its connection, a future)."""
    for frame in link.after_user:
        candidate = frame.owner
        if candidate is not None and not frame.is_standard and _holds(candidate, owner):
            return candidate
    return thing


def _holds(holder: object, owner: Any) -> bool:
    """Say whether an object, or one of its attributes, lives on a loop."""
    if owner_loop(holder) is owner:
        return True
    return any(owner_loop(value) is owner for value in list(stored(holder).values())[:_MAX_ATTRIBUTES])


def _owned(frame: Frame, current: Any) -> Iterator[tuple[object, Any]]:
    """Yield objects of a frame that belong to another loop than the one that ran it."""
    if frame.native or (frame.module in LOOP_MODULES or frame.module == "asyncio.runners"):
        return
    values = frame.variables
    own = values.get("self")
    ordered = ([own] if own is not None else []) + [value for name, value in values.items() if name != "self"]
    for value in ordered:
        owner = owner_loop(value)
        if owner is not None and owner is not current:
            yield value, owner
    if own is not None:
        for value in list(stored(own).values())[:_MAX_ATTRIBUTES]:
            owner = owner_loop(value)
            if owner is not None and owner is not current:
                yield own, owner
