"""The rule on lifetimes: objects that were closed on purpose and used again."""

from homeloop._provenance import object_records
from homeloop.diagnosis._chain import Link
from homeloop.diagnosis._codes import Kind
from homeloop.diagnosis._frames import Frame
from homeloop.diagnosis._judgement import Channel, Judgement
from homeloop.diagnosis._reading import attribute, is_kind


def ended(link: Link, links: list[Link], channel: Channel) -> Judgement | None:
    """Something refuses because it was closed on purpose before: its own check of that raised."""
    last = link.last
    if last is None or last.owner is None or not last.raised_here:
        return None
    if not last.is_package and not is_kind(last.owner, "threading", "Thread"):
        return None
    for frame in reversed(link.after_user):
        thing = frame.owner
        if thing is not None and frame.is_package and _was_closed(thing, link, last):
            record = object_records.get(thing)
            if record is not None and not record.block_ended:
                return None  # the program called its close() and knows of it
            evidence = "it was closed by its own close() before this use"
            if record is not None:
                evidence = "the block that it was used in had ended, and closed it, before this use"
            return Judgement(Kind.USE_AFTER_CONTEXT_EXIT, "medium", evidence, link, thing, None, None, frame)
    return None


def _was_closed(thing: object, link: Link, last: Frame) -> bool:
    if is_kind(thing, "psycopg", "AsyncConnection", "AsyncCursor"):
        if last.top != "psycopg" or not link.is_kind("psycopg.OperationalError", "psycopg.InterfaceError"):
            return False
        connection = attribute(thing, "_conn") or thing
        return attribute(connection, "_closed") is True
    if is_kind(thing, "aiosqlite", "Connection"):
        # It has a thread of its own, started once; without a connection that thread has ended.
        own_thread, given = attribute(thing, "_thread"), last.owner
        refused = given is own_thread and link.is_plain_runtime_error
        refused = refused or (given is thing and link.is_kind("builtins.ValueError"))
        return refused and own_thread is not None and attribute(thing, "_connection") is None
    if thing is not last.owner or not last.is_package:
        return False
    if is_kind(thing, "aiohttp", "ClientSession"):
        return link.is_plain_runtime_error and attribute(thing, "_connector") is None
    if is_kind(thing, "httpx", "AsyncClient") or is_kind(thing, "httpx2", "AsyncClient"):
        state = attribute(thing, "_state")
        return link.is_plain_runtime_error and state is not None and attribute(state, "_name_") == "CLOSED"
    if is_kind(thing, "asyncpg", "PoolConnectionProxy"):
        return link.is_kind("asyncpg.exceptions._base.InterfaceError") and attribute(thing, "_con") is None
    if is_kind(thing, "asyncpg", "Pool"):
        return last.function == "_check_init" and attribute(thing, "_closed") is True
    return False
