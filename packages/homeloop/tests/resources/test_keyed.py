"""KeyedLoopLocal: one resource per loop and key; what is idle too long or too much is closed, unless leased."""

import asyncio
import contextvars
import gc
import threading
import weakref

import pytest

import homeloop
from homeloop import KeyedLoopLocal, LoopRuntime
from homeloop.errors import WrongThreadError

BOUND = 10.0  # seconds

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


class Pool:
    """A resource that knows its loop and insists on it, as a connection pool does."""

    def __init__(self, key: object) -> None:
        self.key = key
        self.loop = asyncio.get_running_loop()
        self.closed = asyncio.Event()

    async def aclose(self) -> None:
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        self.closed.set()

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set()


async def turns(number: int = 10) -> None:
    """Let the others go on."""
    for _ in range(number):
        await asyncio.sleep(0)


async def bounded(event: asyncio.Event) -> None:
    """Wait for something that must happen."""
    async with asyncio.timeout(BOUND):
        await event.wait()


# -- keys ---------------------------------------------------------------------------------------------


def test_each_key_has_its_own_instance_on_each_loop(runtime: LoopRuntime) -> None:
    """The factory gets the key; the same key on another loop is another instance."""
    pools = KeyedLoopLocal(Pool)

    async def both() -> tuple[Pool, Pool]:
        alice, bob = await pools.get("alice"), await pools.get("bob")
        assert (alice.key, bob.key) == ("alice", "bob")
        assert await pools.get("alice") is alice
        return alice, bob

    here, there = runtime.run(both), asyncio.run(both())
    assert len({*here, *there}) == 4
    assert [pool.is_closed for pool in there] == [True, True]
    assert [pool.is_closed for pool in here] == [False, False]


def test_concurrent_first_uses_of_a_key_open_once(runtime: LoopRuntime) -> None:
    """However many ask at the same time, one instance per key is made; the others count as hits."""
    made: list[int] = []

    async def make(key: int) -> int:
        await turns(3)
        made.append(key)
        return key

    pools = KeyedLoopLocal(make)

    async def many() -> set[int]:
        return set(await asyncio.gather(*(pools.get(number % 5) for number in range(100))))

    assert runtime.run(many) == set(range(5))
    assert sorted(made) == list(range(5))
    counts = pools.statistics()
    assert (counts.misses, counts.hits, counts.opened, counts.live) == (5, 95, 5, 5)


def test_one_keys_failure_is_its_own(runtime: LoopRuntime) -> None:
    """The key's users get the error, and nothing of it is kept."""

    async def make(key: str) -> str:
        await turns(1)
        if key == "bad":
            raise ConnectionError(key)
        return key

    pools = KeyedLoopLocal(make)

    async def main() -> list[object]:
        return await asyncio.gather(pools.get("good"), pools.get("bad"), pools.get("bad"), return_exceptions=True)

    good, *bad = runtime.run(main)
    assert good == "good"
    assert [str(error) for error in bad] == ["bad", "bad"]
    counts = pools.statistics()
    assert (counts.failed, counts.live, len(counts.instances)) == (1, 1, 1)


def test_a_key_that_cannot_be_kept_is_refused_before_anything_is_opened(runtime: LoopRuntime) -> None:
    """Also when it is the first key of all."""
    made: list[object] = []
    pools = KeyedLoopLocal(made.append)
    for _ in range(2):
        with pytest.raises(TypeError, match="unhashable"):
            runtime.run(pools.get, [])
    assert made == []


def test_aclose_closes_the_named_keys_or_all(runtime: LoopRuntime) -> None:
    """A closed key is opened anew by the next one who asks; an absent one is nothing to close."""
    pools = KeyedLoopLocal(Pool)

    async def main() -> None:
        one, two, three = [await pools.get(number) for number in range(3)]
        await pools.aclose(0, "absent")
        assert [one.is_closed, two.is_closed, three.is_closed] == [True, False, False]
        assert await pools.get(0) is not one
        await pools.aclose()
        assert two.is_closed
        assert three.is_closed
        assert pools.statistics().live == 0
        await pools.aclose()

    runtime.run(main)


def test_close_from_sync_code_closes_every_key_on_every_loop(runtime: LoopRuntime) -> None:
    """Each on its own loop; on the loop's own thread it is refused."""
    pools = KeyedLoopLocal(Pool)

    async def three() -> list[Pool]:
        opened = [await pools.get(number) for number in range(3)]
        with pytest.raises(WrongThreadError):
            pools.close()
        return opened

    with LoopRuntime(name="other") as other:
        opened = [*runtime.run(three), *other.run(three)]
        assert not any(pool.is_closed for pool in opened)
        pools.close()
    assert all(pool.is_closed for pool in opened)
    assert pools.statistics().closed == 6


def test_close_waits_for_what_is_being_closed_already(runtime: LoopRuntime) -> None:
    """When it returns nothing is left, whoever began to close it."""
    may_end = threading.Event()

    class Slow(Pool):
        async def aclose(self) -> None:
            await asyncio.to_thread(may_end.wait, BOUND)
            await super().aclose()

    pools = KeyedLoopLocal(Slow)

    async def begin_closing() -> Pool:
        pool = await pools.get(1)
        closing = asyncio.create_task(pools.aclose(1))
        await turns()
        closing.cancel()
        return pool

    pool = runtime.run(begin_closing)
    with pytest.raises(TimeoutError, match="not closed within 0 s on 1 of 1 loops"):
        pools.close(0.0)
    may_end.set()
    pools.close(BOUND)
    assert pool.is_closed


def test_keys_are_told_to_nobody(runtime: LoopRuntime) -> None:
    """A key may be a secret; events and statistics name the resource and the loop only."""
    events: list[homeloop.Event] = []

    class Recorder:
        def notify(self, event: homeloop.Event) -> None:
            events.append(event)

    remove = homeloop.add_instrument(Recorder())
    try:
        pools = KeyedLoopLocal(Pool, max_items=1)
        runtime.run(pools.get, "hunter2")
        runtime.run(pools.get, "hunter3")
        pools.close()
    finally:
        remove()
    assert len(events) >= 4
    assert "hunter" not in repr((events, pools.statistics(), pools))


@pytest.mark.parametrize(
    "bound", [{"max_idle": 0.0}, {"max_idle": float("nan")}, {"max_items": 0}, {"max_items": 1.5}]
)
def test_a_bound_that_would_keep_nothing_is_refused(bound: dict[str, float]) -> None:
    """None means no bound."""
    with pytest.raises(ValueError, match=next(iter(bound))):
        KeyedLoopLocal(Pool, **bound)


# -- too many -----------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first(runtime: LoopRuntime) -> None:
    """Asking counts as use, and so does giving a lease back."""
    pools = KeyedLoopLocal(Pool, max_items=3)

    async def main() -> None:
        zero, one, two = [await pools.get(number) for number in range(3)]
        async with pools(0):
            await pools.get(1)
            await pools.get(2)
        await pools.get(3)
        await bounded(one.closed)
        await pools.get(4)
        await bounded(two.closed)
        assert await pools.get(0) is zero
        assert pools.statistics().evicted == 2

    runtime.run(main)


def test_what_is_leased_is_never_evicted(runtime: LoopRuntime) -> None:
    """While all are leased there are more than max_items; the excess goes when a lease is given back."""
    pools = KeyedLoopLocal(Pool, max_items=2)

    async def main() -> None:
        async with pools(0) as zero, pools(1) as one:
            async with pools(2) as two:
                await turns()
                assert not any(pool.is_closed for pool in (zero, one, two))
                assert pools.statistics().in_use == 3
            await bounded(two.closed)
            assert not zero.is_closed
            assert not one.is_closed
            assert pools.statistics().evicted == 1
        await turns()
        assert pools.statistics().live == 2

    runtime.run(main)


def test_what_is_waited_for_is_not_evicted(runtime: LoopRuntime) -> None:
    """Two first uses with room for one: each gets an open instance to lease, and one of them stays."""
    gate = asyncio.Event()

    async def make(key: int) -> Pool:
        await gate.wait()
        return Pool(key)

    pools = KeyedLoopLocal(make, max_items=1)

    async def use(key: int) -> bool:
        async with pools(key) as pool:
            await turns()
            return pool.is_closed

    async def main() -> list[bool]:
        users = [asyncio.create_task(use(key)) for key in range(5)]
        await turns()
        assert pools.statistics().waiting == 5
        gate.set()
        were_closed = await asyncio.gather(*users)
        await turns()
        assert pools.statistics().live == 1
        return were_closed

    assert runtime.run(main) == [False] * 5


def test_an_opening_that_nobody_waits_for_any_more_is_not_kept_beyond_the_bound(runtime: LoopRuntime) -> None:
    """Its users were cancelled; it opens, and goes when there is no room for it."""
    gate = asyncio.Event()

    async def make(key: int) -> Pool:
        if key:
            await gate.wait()
        return Pool(key)

    pools = KeyedLoopLocal(make, max_items=1)

    async def main() -> None:
        async with pools(0) as zero:
            user = asyncio.create_task(pools.get(1))
            await turns()
            user.cancel()
            with pytest.raises(asyncio.CancelledError):
                await user
            gate.set()
            await turns()
            assert not zero.is_closed
            counts = pools.statistics()
            assert (counts.opened, counts.evicted, counts.live) == (2, 1, 1)

    runtime.run(main)


def test_an_evicted_key_is_opened_anew_while_the_old_one_closes(runtime: LoopRuntime) -> None:
    """Nobody gets an instance that is closing, and nobody waits for its end."""
    may_close = asyncio.Event()

    class Slow(Pool):
        async def aclose(self) -> None:
            await may_close.wait()
            await super().aclose()

    pools = KeyedLoopLocal(Slow, max_items=1)

    async def main() -> None:
        old = await pools.get("a")
        await pools.get("b")
        new = await pools.get("a")
        assert new is not old
        assert not new.is_closed
        await turns()
        assert not old.is_closed
        assert sorted(each.is_open for each in pools.statistics().instances) == [False, False, True]
        may_close.set()
        await bounded(old.closed)

    runtime.run(main)


# -- too long -----------------------------------------------------------------------------------------


def test_what_is_idle_too_long_is_closed_on_its_loop(runtime: LoopRuntime) -> None:
    """Without anybody asking; the next one who asks gets a new one."""
    pools = KeyedLoopLocal(Pool, max_idle=0.02)

    async def main() -> None:
        first = await pools.get("a")
        await bounded(first.closed)
        assert await pools.get("a") is not first
        assert pools.statistics().evicted == 1

    runtime.run(main)


def test_what_is_leased_is_not_idle(runtime: LoopRuntime) -> None:
    """Its time begins when it is given back."""
    pools = KeyedLoopLocal(Pool, max_idle=0.02)

    async def main() -> None:
        async with pools("leased") as leased:
            for _ in range(3):  # the timer ends the others meanwhile, one after the other
                await bounded((await pools.get("other")).closed)
            assert not leased.is_closed
            assert await pools.get("leased") is leased
        await bounded(leased.closed)

    runtime.run(main)


def test_the_idle_timer_keeps_no_context_and_ends_with_the_last_instance(runtime: LoopRuntime) -> None:
    """Neither the variables of who happened to ask nor the resource waits for the timer."""

    class Value:
        pass

    variable: contextvars.ContextVar[Value] = contextvars.ContextVar("value")
    pools = KeyedLoopLocal(Pool, max_idle=3600.0)

    async def main() -> tuple["weakref.ref[Value]", "weakref.ref[Pool]"]:
        value = Value()
        variable.set(value)
        pool = await pools.get("a")
        await pools.aclose()
        return weakref.ref(value), weakref.ref(pool)

    def call() -> tuple["weakref.ref[Value]", "weakref.ref[Pool]"]:
        return runtime.run(main)

    kept = contextvars.copy_context().run(call)
    gc.collect()
    assert [each() for each in kept] == [None, None]


def test_a_loop_may_end_with_a_timer_running() -> None:
    """It closes what is left; the timer does not hold the loop."""
    pools = KeyedLoopLocal(Pool, max_idle=3600.0)

    async def main() -> tuple[Pool, "weakref.ref[asyncio.AbstractEventLoop]"]:
        return await pools.get("a"), weakref.ref(asyncio.get_running_loop())

    pool, loop = asyncio.run(main())
    assert pool.is_closed
    del pool
    gc.collect()
    assert loop() is None
