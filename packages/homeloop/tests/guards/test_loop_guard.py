"""LoopGuard: what it changes, what it leaves alone, and what becomes of a guard that does not fit."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from homeloop import LoopGuard, LoopLocal, LoopRuntime, check_loop
from homeloop.errors import AdapterError, WrongLoopError


class Part:
    """Something that a client gives."""

    async def read(self) -> str:
        return "part"


class Client:
    """A client that does not care where it is used."""

    async def fetch(self, value: object) -> object:
        return value

    async def rows(self) -> AsyncIterator[int]:
        try:
            for number in range(3):
                yield number
        finally:
            self.rows_closed = True

    def stop(self) -> str:
        return "stopped"

    def part(self) -> Part:
        return Part()

    @staticmethod
    async def helper() -> str:
        return "helped"

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return self.part()


class Slotted:
    """A client without room for another attribute, which keeps its loop itself."""

    __slots__ = ("home",)

    def __init__(self) -> None:
        self.home = asyncio.get_running_loop()

    async def fetch(self) -> int:
        return 1


PART = LoopGuard(coroutines=True)
CLIENT = LoopGuard("stop", "__await__", coroutines=True, results={"part": PART, "__await__": PART})


@pytest.fixture
def stranger(runtime: LoopRuntime) -> Any:
    """Another live loop."""
    with LoopRuntime(name="stranger") as opened:
        yield opened


async def guarded_client() -> Client:
    return CLIENT(Client(), asyncio.get_running_loop())


async def awaited(value: Any) -> Any:
    return await value


async def first(client: Client) -> int:
    return await anext(client.rows())


async def stop(client: Client) -> str:
    return client.stop()


@pytest.mark.parametrize("entry", [lambda client: client.fetch(1), first, awaited, stop])
def test_entries_of_every_kind_are_refused(
    entry: Callable[[Client], Any], runtime: LoopRuntime, stranger: LoopRuntime
) -> None:
    """Coroutine functions, generators, awaitables and plain functions raise; the owner may call them."""
    client = runtime.run(guarded_client)
    with pytest.raises(WrongLoopError) as refused:
        stranger.run(entry, client)
    assert (refused.value.owner, refused.value.current) == (
        str(runtime.statistics().home),
        str(stranger.statistics().home),
    )
    runtime.run(entry, client)


def test_parts_are_refused(runtime: LoopRuntime, stranger: LoopRuntime) -> None:
    """What a guarded object gives is guarded, whether it is returned or awaited; asking for it is free."""
    client = runtime.run(guarded_client)
    part = client.part()
    assert runtime.run(part.read) == "part"
    for smuggled in (part, runtime.run(awaited, client)):
        with pytest.raises(WrongLoopError, match=r"Part\.read\(\)"):
            stranger.run(smuggled.read)


def test_a_call_without_a_loop_is_refused_by_name_of_the_thread(runtime: LoopRuntime) -> None:
    """A plain function called where no loop runs is refused too."""
    client = runtime.run(guarded_client)
    with pytest.raises(WrongLoopError, match=r"no running loop \(thread 'MainThread'\)"):
        client.stop()


def test_a_coroutine_may_be_made_anywhere(runtime: LoopRuntime) -> None:
    """What counts is the loop that runs it: the usual way over the fence stays open."""
    client = runtime.run(guarded_client)

    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert asyncio.run_coroutine_threadsafe(client.fetch("value"), runtime.run(loop)).result(5) == "value"


def test_a_generator_is_closed_with_its_wrapper(runtime: LoopRuntime) -> None:
    """Leaving the loop over a guarded generator early runs its finally block then and there."""

    async def leave_early() -> bool:
        client = await guarded_client()
        rows: Any = client.rows()
        async for _ in rows:
            break
        await rows.aclose()
        return client.rows_closed

    assert runtime.run(leave_early)


def test_others_of_the_class_stay_as_they_are(runtime: LoopRuntime, stranger: LoopRuntime) -> None:
    """Only the object that was guarded refuses; it is still an instance of its class, and looks like one."""
    client, other = runtime.run(guarded_client), Client()
    assert isinstance(client, Client)
    assert (type(client).__name__, type(client).__module__) == (Client.__name__, Client.__module__)
    assert type(other) is Client
    assert stranger.run(other.fetch, 1) == 1
    assert stranger.run(client.helper) == "helped"


def test_an_object_keeps_its_first_owner(runtime: LoopRuntime, stranger: LoopRuntime) -> None:
    """Guarding twice on one loop changes nothing; on another loop it is refused."""
    client = runtime.run(guarded_client)

    async def again() -> Client:
        return CLIENT(client, asyncio.get_running_loop())

    assert runtime.run(again) is client
    with pytest.raises(WrongLoopError, match="Client belongs to"):
        stranger.run(again)


def test_a_loop_kept_by_the_product_is_believed(runtime: LoopRuntime, stranger: LoopRuntime) -> None:
    """An object without room for an attribute is guarded by the loop that it keeps."""
    guard = LoopGuard("fetch", loop="home")

    async def make() -> Slotted:
        return guard(Slotted(), asyncio.get_running_loop())

    made = runtime.run(make)
    assert runtime.run(made.fetch) == 1
    with pytest.raises(WrongLoopError):
        stranger.run(made.fetch)


class Full:
    """A client without a place for one more attribute."""

    __slots__ = ("url",)

    async def fetch(self) -> None: ...


def test_a_guard_that_does_not_fit_says_so(runtime: LoopRuntime) -> None:
    """A missing entry, or a class that cannot be exchanged, is an error before anything has changed."""

    async def guard(with_guard: LoopGuard, value: object) -> None:
        with_guard(value, asyncio.get_running_loop())

    client = Client()
    with pytest.raises(AdapterError, match=r"Client has no method gone\(\)"):
        runtime.run(guard, LoopGuard("gone"), client)
    assert type(client) is Client
    with pytest.raises(AdapterError, match="cannot be guarded"):
        runtime.run(guard, LoopGuard(), [])
    full = Full()
    with pytest.raises(AdapterError, match="Full cannot be guarded"):
        runtime.run(guard, LoopGuard(coroutines=True), full)
    assert type(full) is Full


def test_a_guarded_object_is_collected_with_its_last_reference(runtime: LoopRuntime) -> None:
    """A guard keeps no object alive."""

    async def make() -> "weakref.ref[Client]":
        return weakref.ref(await guarded_client())

    reference = runtime.run(make)
    gc.collect()
    assert reference() is None


def test_check_loop_speaks_for_objects_of_your_own(runtime: LoopRuntime, stranger: LoopRuntime) -> None:
    """An object that keeps its loop can check it by itself."""

    async def here() -> asyncio.AbstractEventLoop:
        check_loop(asyncio.get_running_loop(), "this")
        return asyncio.get_running_loop()

    async def there(loop: asyncio.AbstractEventLoop) -> None:
        check_loop(loop, "the thing")

    with pytest.raises(WrongLoopError, match="the thing belongs to"):
        stranger.run(there, runtime.run(here))


def install(folder: Path, guard: str) -> None:
    """Make a product with a guard in a distribution of its own, as pip would leave them."""
    (folder / "product.py").write_text("class Client:\n    async def fetch(self):\n        return 1\n")
    (folder / "guards.py").write_text(guard)
    metadata = folder / "product_guard-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: product-guard\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[homeloop.guards]\nproduct = guards:guard\n")


USE_PRODUCT = """
    import asyncio, sys, homeloop, product
    from homeloop import LoopLocal
    local = LoopLocal(product.Client)
    loaded = "guards" in sys.modules
    first = asyncio.run(local.get())
    assert not loaded, "the guard was loaded before it was needed"
    class Mine(product.Client): pass
    mine = asyncio.run(LoopLocal(Mine).get())
    for client in (first, mine):
        try:
            print(asyncio.run(client.fetch()))
        except homeloop.errors.WrongLoopError:
            print("refused")
"""

Script = Callable[..., "CompletedProcess[str]"]


def test_anybody_may_bring_a_guard(script: Script, tmp_path: Path) -> None:
    """An entry point named as the product's package guards its objects, and those of subclasses elsewhere."""
    install(tmp_path, "from homeloop import LoopGuard\nguard = LoopGuard(coroutines=True)\n")
    run = script(USE_PRODUCT, PYTHONPATH=str(tmp_path))
    assert (run.returncode, run.stdout.split()) == (0, ["refused", "refused"]), run.stderr


@pytest.mark.parametrize(
    "broken", ["import nothing_of_that_name", "from homeloop import LoopGuard\nguard = LoopGuard('gone')"]
)
def test_a_broken_guard_is_reported_and_no_more(broken: str, script: Script, tmp_path: Path) -> None:
    """A guard that cannot be loaded, or does not fit, costs the protection, not the resource."""
    install(tmp_path, broken)
    run = script(USE_PRODUCT, PYTHONPATH=str(tmp_path))
    assert (run.returncode, run.stdout.split()) == (0, ["1", "1"]), run.stderr
    assert "GuardFailed(what='product.Client'" in run.stderr


def test_a_resource_that_belongs_elsewhere_is_not_handed_out(runtime: LoopRuntime, stranger: LoopRuntime) -> None:
    """A factory that gives every loop the same guarded object is found out by the second loop."""
    client = runtime.run(guarded_client)

    async def find() -> Client:
        return CLIENT(client, asyncio.get_running_loop())

    local = LoopLocal(find)
    assert runtime.run(local.get) is client
    with pytest.raises(WrongLoopError):
        stranger.run(local.get)


EMPTY: dict[str, int] = {}


class Demanding:
    """A client whose methods have parameters of every kind."""

    def plain(
        self, first: int, second: object = EMPTY, /, third: int = 3, *, fourth: int, fifth: str = "it's"
    ) -> Any:
        return first, second, third, fourth, fifth

    def variable(self, first: int, *rest: int, **named: int) -> Any:
        return first, rest, named

    def many(
        self, a: int, b: int = 2, c: int = 3, d: int = 4, e: int = 5, f: int = 6, g: int = 7, h: int = 8
    ) -> Any:
        return a, b, c, d, e, f, g, h

    async def strange(this, method: int, self: int = 0, loop: object = None) -> Any:  # noqa: N805
        return method, self, loop


def test_arguments_arrive_as_they_were_given(runtime: LoopRuntime) -> None:
    """Whatever kinds of parameters a method has and however they are named; mistakes are told as ever."""
    demanding = LoopGuard("plain", "variable", "many", "strange")

    async def main() -> None:
        client = demanding(Demanding(), asyncio.get_running_loop())
        assert client.plain(1, fourth=4) == (1, EMPTY, 3, 4, "it's")
        assert client.plain(1, fourth=4)[1] is EMPTY
        assert client.plain(1, 2, 5, fourth=4, fifth="") == (1, 2, 5, 4, "")
        assert client.variable(1, 2, 3, x=4) == (1, (2, 3), {"x": 4})
        assert client.many(1, h=9) == (1, 2, 3, 4, 5, 6, 7, 9)
        assert await client.strange(1, self=2, loop=3) == (1, 2, 3)
        with pytest.raises(TypeError, match="fourth"):
            client.plain(1)
        with pytest.raises(TypeError, match="unexpected keyword argument 'sixth'"):
            client.plain(1, fourth=4, sixth=6)

    runtime.run(main)
