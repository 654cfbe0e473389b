"""Under gevent and eventlet: greenlets wait for a loop while their neighbours go on."""

import subprocess
from collections.abc import Callable

import pytest

from .conftest import DEADLINE, PRELUDE

LIBRARIES = {
    "gevent": """
import gevent.monkey; gevent.monkey.patch_all()
import gevent, gevent.event
spawn = gevent.spawn
def outcome(greenlet): return greenlet.get()
def kill(greenlet): greenlet.kill(block=True)
pause, Limit = gevent.sleep, gevent.Timeout
""",
    "eventlet": """
import warnings; warnings.filterwarnings("ignore", message="(?s).*Eventlet is deprecated|Using fork")
import eventlet; eventlet.monkey_patch()
spawn = eventlet.spawn
def outcome(greenlet): return greenlet.wait()
def kill(greenlet): greenlet.kill()
pause, Limit = eventlet.sleep, eventlet.Timeout
""",
}

NEIGHBOUR = """
class Neighbour:
    # A greenlet that goes round and round: how often is how long it was let.
    def __init__(self):
        self.rounds, self.loops, self.going = 0, set(), True
        self.greenlet = spawn(self.go)
    def go(self):
        while self.going:
            self.rounds += 1
            self.loops.add(asyncio._get_running_loop())
            pause(0.001)
    def stop(self):
        self.going = False
        outcome(self.greenlet)
        assert self.loops == {None}, self.loops  # nobody else's loop was ever seen
"""

Scenario = Callable[..., list[str]]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    """The name of a greenlet library. Not imported: a process that imports eventlet is warned of each fork."""
    return str(request.param)


@pytest.fixture
def green(script: "Callable[..., subprocess.CompletedProcess[str]]", library: str) -> Scenario:
    """Run a script in a patched process of its own, which must end well and in silence; return what it printed."""

    def run(source: str, loop_kind: str = "asyncio", **environment: str) -> list[str]:
        prelude = f"{LIBRARIES[library]}\nLOOP_KIND = {loop_kind!r}\n{PRELUDE}\n{NEIGHBOUR}"
        ended = script(prelude + source, timeout=DEADLINE, **environment)
        noise = [line for line in ended.stderr.splitlines() if "threads that code on it starts" not in line]
        assert noise == []
        assert ended.returncode == 0
        return ended.stdout.splitlines()

    return run


def test_k01_run_returns_in_a_patched_process(green, loop_kind) -> None:
    """monkey-patched process: run() returns."""
    printed = green(
        """
print(homeloop.run(identity, "alone"))
print(outcome(spawn(homeloop.run, identity, "in a greenlet")))
print(homeloop.run(identity, "beside a hub"))
""",
        loop_kind,
    )
    assert printed == ["alone", "in a greenlet", "beside a hub"]


def test_k02_neighbours_go_on(green, loop_kind) -> None:
    """monkey-patched: other greenlets progress while one is inside run()."""
    printed = green(
        """
neighbour = Neighbour()
async def until_the_neighbour_has_moved():
    seen = neighbour.rounds
    while neighbour.rounds < seen + 20:
        await asyncio.sleep(0.001)
    return "moved"
print(homeloop.run(until_the_neighbour_has_moved, timeout=30))
neighbour.stop()
""",
        loop_kind,
    )
    assert printed == ["moved"]


@pytest.mark.parametrize("number", [10, 100])
def test_k03_greenlets_overlap(green, loop_kind, number) -> None:
    """monkey-patched: 10 greenlets in run() overlap and get the right results."""
    printed = green(
        f"""
number = {number}
async def meet(mine):
    # Nobody passes before everybody is here.
    async with asyncio.timeout(30):
        arrived.append(mine)
        if len(arrived) == number:
            everybody.set()
        await everybody.wait()
    return mine
arrived, everybody = [], asyncio.Event()
neighbour = Neighbour()
callers = [spawn(homeloop.run, meet, mine) for mine in range(number)]
print([outcome(caller) for caller in callers] == list(range(number)))
neighbour.stop()
""",
        loop_kind,
    )
    assert printed == ["True"]


def test_k04_a_timeout_is_honoured(green, loop_kind) -> None:
    """monkey-patched: timeout is honoured."""
    printed = green(
        """
async def stuck():
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaned up")
homeloop.default_runtime().start()  # else a busy machine spends the time on that
neighbour = Neighbour()
def call():
    try:
        homeloop.run(stuck, timeout=0.05)
    except TimeoutError as error:
        return "stuck" in str(error)
print(outcome(spawn(call)))
neighbour.stop()
print(homeloop.default_runtime().statistics().abandoned)
""",
        loop_kind,
    )
    assert printed == ["cleaned up", "True", "0"]


def test_what_blocks_the_loop_is_named(green, loop_kind) -> None:
    """Although the thread's own stack is that of its hub, which waits: the line of the user's is shown."""
    printed = green(
        """
import select
reader, writer = os.pipe()
begun, tell = os.pipe()
async def block():
    os.write(tell, b"!")
    select.select([reader], [], [])  # the library's
def call():
    blocking = homeloop.submit(block)
    select.select([begun], [], [])
    try:
        homeloop.run(identity, "too late", timeout=0.05)
    except TimeoutError as error:
        return error.blocked_at[0]
print(outcome(spawn(call)))
os.write(writer, b"!")
print(homeloop.run(identity, "goes on"))
""",
        loop_kind,
    )
    place, last = printed
    assert place.endswith("in block")
    assert last == "goes on"


@pytest.mark.parametrize("how", ["kill", "limit"])
def test_an_interrupted_greenlet_cancels_its_call(green, loop_kind, how) -> None:
    """A kill and the library's own time-out cancel the coroutine; they are raised after its clean-up."""
    printed = green(
        f"""
inside = threading.Event()
async def stuck():
    try:
        inside.set()
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.01)
        print("cleaned up")
def call():
    try:
        if {how!r} == "kill":
            homeloop.run(stuck)
        with Limit(0.2):
            homeloop.run(stuck)
    except BaseException as error:
        print(type(error).__name__)
homeloop.default_runtime().start()  # else a busy machine spends the limit on that
greenlet = spawn(call)
while not inside.is_set():
    pause(0.001)
if {how!r} == "kill":
    kill(greenlet)
outcome(greenlet)
""",
        loop_kind,
    )
    assert printed == ["cleaned up", {"kill": "GreenletExit", "limit": "Timeout"}[how]]


def test_futures_are_waited_for_by_the_usual_means(green, loop_kind) -> None:
    """submit(): result, wait, as_completed and callbacks in greenlets; errors and cancellation too."""
    printed = green(
        """
from concurrent.futures import CancelledError, as_completed, wait
neighbour = Neighbour()
async def slow(thing):
    await asyncio.sleep(0.02)
    return thing
async def fail():
    raise KeyError("mine")
futures = [homeloop.submit(slow, n) for n in range(20)]
print([future.result(30) for future in futures] == list(range(20)))
print(len(wait([homeloop.submit(slow, n) for n in range(5)], 30).done))
print(sorted(f.result() for f in as_completed([homeloop.submit(slow, n) for n in range(3)], 30)))
print(repr(homeloop.submit(fail).exception(30)))
called = []
homeloop.submit(slow, "x").add_done_callback(lambda f: called.append(f.result()))
while not called:
    pause(0.001)
print(called)
stuck = homeloop.submit(asyncio.Event().wait)
print(stuck.cancel(), stuck.cancelled())
print(outcome(spawn(lambda: homeloop.submit(slow, "from a greenlet").result(30))))
neighbour.stop()
""",
        loop_kind,
    )
    assert printed == ["True", "5", "[0, 1, 2]", "KeyError('mine')", "['x']", "True True", "from a greenlet"]


def test_a_future_that_is_older_than_the_hub(green, loop_kind) -> None:
    """submit() before the first greenlet: waiting for it lets those go on that come later."""
    printed = green(
        """
async def until_the_neighbour_has_moved():
    while not neighbours or neighbours[0].rounds < 20:
        await asyncio.sleep(0.001)
    return "moved"
neighbours = []
future = homeloop.submit(until_the_neighbour_has_moved)
neighbours.append(Neighbour())
print(future.result(30))
neighbours[0].stop()
""",
        loop_kind,
    )
    assert printed == ["moved"]


def test_what_a_factory_sets_stays_set(green) -> None:
    """Debug mode, task factory and exception handler of a loop that is made anew."""
    printed = green(
        """
def factory(loop, coroutine, **options):
    return asyncio.Task(coroutine, loop=loop, **options)
def handler(loop, context):
    pass
def make():
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    loop.set_task_factory(factory)
    loop.set_exception_handler(handler)
    return loop
async def look():
    loop = asyncio.get_running_loop()
    return loop.get_debug(), loop.get_task_factory() is factory, loop.get_exception_handler() is handler
with LoopRuntime(name="set", loop_factory=make) as runtime:
    print(runtime.run(look))
"""
    )
    assert printed == ["(True, True, True)"]


def test_a_bound_callback_is_waited_for(green, loop_kind) -> None:
    """bind_callback(): greenlets call it in order and wait for its effect."""
    printed = green(
        """
neighbour = Neighbour()
steps = []
report = homeloop.bind_callback(steps.append)
def work():
    for step in range(100):
        last = report(step)
    last.result(30)
    return steps == list(range(100))
print(outcome(spawn(work)))
neighbour.stop()
""",
        loop_kind,
    )
    assert printed == ["True"]


def test_conversations_in_greenlets(green, loop_kind) -> None:
    """iterate() and enter() let neighbours go on between items, and many go on at once."""
    printed = green(
        """
from contextlib import asynccontextmanager
async def count(upto):
    for number in range(upto):
        await asyncio.sleep(0.001)
        yield number
@asynccontextmanager
async def lent():
    await asyncio.sleep(0.001)
    yield "lent"
    await asyncio.sleep(0.001)
neighbour = Neighbour()
def talk():
    with homeloop.enter(lent()) as thing:
        return thing, list(homeloop.iterate(count, 5))
talks = [spawn(talk) for _ in range(10)]
print({(thing, tuple(items)) for thing, items in map(outcome, talks)})
neighbour.stop()
""",
        loop_kind,
    )
    assert printed == ["{('lent', (0, 1, 2, 3, 4))}"]


def test_closing_lets_neighbours_go_on(green, loop_kind) -> None:
    """close() waits for clean-up that waits for a neighbour."""
    printed = green(
        """
neighbour = Neighbour()
runtime = LoopRuntime(name="closing")
inside = threading.Event()
async def patient():
    try:
        inside.set()
        await asyncio.Event().wait()
    finally:
        seen = neighbour.rounds
        while neighbour.rounds < seen + 20:
            await asyncio.sleep(0.001)
        print("cleaned up")
future = runtime.submit(patient)
while not inside.is_set():
    pause(0.001)
runtime.close(30)
print(type(future.exception(30)).__name__)
neighbour.stop()
""",
        loop_kind,
    )
    assert printed == ["cleaned up", "RuntimeDiedError"]


def test_what_a_loop_needs_works(green) -> None:
    """Names are resolved, streams and TLS talk, children run, workers block without stopping the loop."""
    printed = green(
        """
async def talk_by_name():
    async def answer(reader, writer):
        writer.write((await reader.readline())[::-1])
        writer.close()
    async with await asyncio.start_server(answer, "localhost", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async def one():
            reader, writer = await asyncio.open_connection("localhost", port)
            writer.write(b"ping\\n")
            said = await reader.read()
            writer.close()
            await writer.wait_closed()
            return said
        return set(await asyncio.gather(*(one() for _ in range(30))))
async def descriptors():
    return len(os.listdir("/proc/self/fd"))
async def a_child():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print(input())", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate(b"hello\\n")
    return said, process.returncode
async def blocked_workers():
    # They block until all are there, and the loop goes on meanwhile.
    import time
    everybody = []
    def block():
        everybody.append(1)
        while len(everybody) < 4:
            time.sleep(0.001)
        return threading.get_ident()
    jobs = [asyncio.create_task(asyncio.to_thread(block)) for _ in range(3)]
    while len(everybody) < 3:
        await asyncio.sleep(0.001)
    everybody.append(1)
    return len(set(await asyncio.gather(*jobs)))
async def a_worker_that_calls():
    return await asyncio.to_thread(homeloop.run, identity, "from a worker")
neighbour = Neighbour()
print(homeloop.run(talk_by_name, timeout=30))
before = homeloop.run(descriptors)
for _ in range(5):
    homeloop.run(talk_by_name, timeout=30)
print(homeloop.run(descriptors) - before)
print(homeloop.run(a_child, timeout=30))
print(homeloop.run(blocked_workers, timeout=30))
print(homeloop.run(a_worker_that_calls, timeout=30))
neighbour.stop()
"""
    )
    assert printed == ["{b'\\ngnip'}", "0", "(b'hello\\n', 0)", "3", "from a worker"]


def test_threads_that_code_on_the_loop_starts(green) -> None:
    """They are greenlets of the loop's thread; they run while the loop waits, and see no running loop."""
    printed = green(
        """
async def start_one():
    seen = []
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    requests = __import__("queue").SimpleQueue()
    def serve():
        while (request := requests.get()) is not None:
            seen.append((request, asyncio._get_running_loop()))
        loop.call_soon_threadsafe(done.set)
    threading.Thread(target=serve).start()
    for request in (1, 2, None):
        requests.put(request)
        await asyncio.sleep(0)
    await done.wait()
    return seen
print(homeloop.run(start_one, timeout=30))
"""
    )
    assert printed == ["[(1, None), (2, None)]"]


def test_the_process_stays_as_the_library_patched_it(green) -> None:
    """The loop's own copies of standard modules change nothing that other code sees."""
    printed = green(
        """
import select, selectors, signal, socket, subprocess, time
watched = (asyncio, os, select, selectors, signal, socket, subprocess, threading, time, sys.modules["_thread"])
before = [dict(vars(module)) for module in watched]
async def use_it():
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    await asyncio.to_thread(len, ())
    return await (await asyncio.create_subprocess_exec("true")).wait()
print(homeloop.run(use_it))
for module, was in zip(watched, before):
    now = vars(module)
    changed = {name for name in was.keys() | now.keys() if was.get(name) is not now.get(name)}
    if changed - {"environ"}:
        print(module.__name__, changed)
print(isinstance(socket.AF_INET, socket.AddressFamily))
"""
    )
    assert printed == ["0", "True"]


def test_a_process_that_is_patched_after_the_import(script, library, loop_kind) -> None:
    """The order of importing homeloop and patching does not matter."""
    source = f"""
import homeloop
{LIBRARIES[library]}
LOOP_KIND = {loop_kind!r}
{PRELUDE}
{NEIGHBOUR}
neighbour = Neighbour()
print(outcome(spawn(homeloop.run, identity, "late")), homeloop.submit(identity, "too").result(30))
neighbour.stop()
"""
    ended = script(source, timeout=DEADLINE)
    assert ended.stdout == "late too\n"
    assert ended.returncode == 0


def test_a_forked_child_of_a_patched_process(green, loop_kind) -> None:
    """The child has a loop of its own."""
    printed = green(
        """
print(outcome(spawn(homeloop.run, identity, "parent")), flush=True)
def work():
    print(homeloop.run(identity, "child", timeout=30), flush=True)
    os._exit(7)
print(child(work))
print(outcome(spawn(homeloop.run, identity, "parent")))
""",
        loop_kind,
    )
    assert printed == ["parent", "child", "7", "parent"]


def test_a_patched_process_exits(green, loop_kind) -> None:
    """Exit drains what is in flight and ends."""
    printed = green(
        """
inside = []
async def patient():
    try:
        inside.append(1)
        await asyncio.Event().wait()
    finally:
        sys.stdout.write("cleaned up\\n")
def call():
    try:
        homeloop.run(patient)
    except RuntimeDiedError:  # if it still has a turn
        pass
spawn(call)
homeloop.submit(patient)
while len(inside) < 2:
    pause(0.001)
""",
        loop_kind,
    )
    assert printed.count("cleaned up") == 2
