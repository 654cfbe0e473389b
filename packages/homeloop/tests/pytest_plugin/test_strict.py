"""`pytest --homeloop`, tried in runs of its own: what it fails, what it says, what it lets pass."""

import re
import sys

import pytest

pytest_plugins = ("pytester",)

HEAD = "import asyncio, threading\nimport pytest\n"
LOCK = (
    HEAD
    + """
lock = asyncio.Lock()

async def work():
    async with lock:
        await asyncio.sleep(0)

async def both():
    await asyncio.gather(work(), work())

def test_first():
    asyncio.run(both())

def test_second():
    with pytest.raises(RuntimeError):
        asyncio.run(both())
"""
)


@pytest.fixture
def strict(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder for tests, with nothing of this run's settings, and no plugin but ours: others load slowly."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider -p homeloop_pytest\n")
    return pytester


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("--homeloop", *arguments)


def test_use_of_another_loops_object(strict: pytest.Pytester) -> None:
    """A test that uses another loop's lock fails, though it swallows the error; test, lock and loops are named."""
    strict.makepyfile(LOCK)
    result = run(strict)
    result.assert_outcomes(passed=1, failed=1)
    out = result.stdout.str()
    assert "test_second misuses event loops" in out
    assert "error[LOOP103]" in out
    assert "asyncio.locks.Lock is used here" in out
    assert re.search(r"it belongs to a \S+, made at\s+\S+\.py:14,", out), out
    assert re.search(r"it was used on a \S+, made at\s+\S+\.py:18,", out), out


def test_same_fault_in_each_test(strict: pytest.Pytester) -> None:
    """A fault at one place fails every test that runs it, not only the first."""
    strict.makepyfile(LOCK + "\ntest_third = test_second\n")
    run(strict).assert_outcomes(passed=1, failed=2)


def test_failed_anyway(strict: pytest.Pytester) -> None:
    """A test that fails by itself shows the diagnosis in its traceback."""
    strict.makepyfile(
        HEAD + "def test_nested():\n    async def main():\n        asyncio.run(main())\n    asyncio.run(main())\n"
    )
    result = run(strict)
    result.assert_outcomes(failed=1)
    assert "error[LOOP201]" in result.stdout.str()


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (
            "    keep.append(asyncio.new_event_loop())\n",
            "loops",
            "loop: asyncio.unix_events._UnixSelectorEventLoop (idle)",
        ),
        (
            "    loop = asyncio.new_event_loop()\n    keep.append(loop.create_task(wait()))\n"
            "    loop.run_until_complete(work())\n",
            "tasks",
            "task: wait(), pending on ",
        ),
        (
            "    threading.Thread(target=event.wait, name='mine', daemon=True).start()\n",
            "threads",
            "thread: 'mine', daemon",
        ),
        (
            "    import httpx\n    keep.append(httpx.AsyncClient())\n",
            "pools",
            "pool: httpx.AsyncClient, not closed",
        ),
    ],
    ids=["loop", "task", "thread", "pool"],
)
def test_leftovers(strict: pytest.Pytester, body: str, kind: str, told: str) -> None:
    """What a test leaves is named, with its place; a marker, and the setting, allow it."""
    head = (
        HEAD
        + "keep = []\nevent = threading.Event()\n"
        + "async def work(): await asyncio.sleep(0)\nasync def wait(): await asyncio.sleep(99)\n"
    )
    allow = ["tasks", "loops"] if kind == "tasks" else [kind]
    strict.makepyfile(
        head
        + f"def test_leaves():\n{body}\ndef test_leaves_nothing():\n    pass\n"
        + f"@pytest.mark.homeloop(allow={allow})\ndef test_may():\n{body}\n"
        + f"@pytest.mark.homeloop\ndef test_may_all():\n{body}\n"
    )
    result = run(strict)
    result.assert_outcomes(passed=4, errors=1)
    out = result.stdout.str()
    assert "::test_leaves left behind:" in out
    assert told in out
    if kind != "threads":
        assert re.search(r"made at test_leftovers\.py:\d+ in test_leaves", out), out
    if kind == "loops":
        run(strict, "-o", "homeloop_allow=loops").assert_outcomes(passed=4)


def test_order(strict: pytest.Pytester) -> None:
    """Sound tests pass: loops that end, tasks that are awaited, threads that are joined, the default runtime."""
    strict.makepyfile(
        HEAD
        + """
import homeloop

async def work():
    task = asyncio.create_task(asyncio.sleep(0))
    await asyncio.to_thread(int)
    await task

def test_run():
    asyncio.run(work())

def test_homeloop():
    homeloop.run(work)
    assert homeloop.run(asyncio.to_thread, int) == 0

def test_thread():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

@pytest.fixture
def loop():
    made = asyncio.new_event_loop()
    yield made
    made.close()

def test_fixture(loop):
    loop.run_until_complete(work())
"""
    )
    run(strict).assert_outcomes(passed=4)


def test_fixtures_of_a_session(strict: pytest.Pytester) -> None:
    """What a fixture of a wider scope makes is its own."""
    strict.makepyfile(
        HEAD
        + """
@pytest.fixture(scope="session")
def loop():
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()

def test_one(loop):
    assert asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 1), loop).result(5) == 1

def test_two(loop):
    assert loop.is_running()
"""
    )
    run(strict).assert_outcomes(passed=2)


def test_with_pytest_asyncio(pytester: pytest.Pytester) -> None:
    """pytest-asyncio's loops come and go without a word; a queue of the session's loop on a test's is told."""
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\nasyncio_mode = auto\nhomeloop = true\n")
    pytester.makepyfile(
        HEAD
        + """
import pytest_asyncio

@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def queue():
    made = asyncio.Queue()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(made.get(), 0.01)
    return made

async def test_sound():
    await asyncio.sleep(0)

async def test_other_loop(queue):
    with pytest.raises(RuntimeError):
        await asyncio.wait_for(queue.get(), 0.01)

@pytest.mark.homeloop(allow="uses")
async def test_allowed(queue):
    with pytest.raises(RuntimeError):
        await asyncio.wait_for(queue.get(), 0.01)
"""
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=2, failed=1)
    assert "test_other_loop misuses event loops" in result.stdout.str()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("allow=['sockets']", "'sockets' is none of"),
        ("allow=5", "allow=5 is no list of"),
        ("allow=None", "allow=None is no list of"),
        ("alow=['tasks']", "(alow=['tasks']): it takes nothing but allow=[...], of"),
        ("['tasks']", "(['tasks']): it takes nothing but allow=[...], of"),
    ],
)
def test_mistakes_in_a_marker(strict: pytest.Pytester, given: str, told: str) -> None:
    """A marker that says something unknown is an error of its test, told once, and the test does not run."""
    strict.makepyfile(f"import pytest\n@pytest.mark.homeloop({given})\ndef test_one(): raise SystemExit\n")
    result = run(strict)
    result.assert_outcomes(errors=1)
    marker = "the marker homeloop of test_mistakes_in_a_marker.py::test_one: "
    assert f"{marker}{told} uses, tasks, threads, loops, pools" in result.stdout.str()


def test_mistake_in_the_setting(strict: pytest.Pytester) -> None:
    """A setting that says something unknown ends the run before it begins."""
    result = run(strict, "-o", "homeloop_allow=sockets")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "homeloop_allow: 'sockets' is none of uses, tasks" in result.stderr.str()


def test_fault_is_told_once(strict: pytest.Pytester) -> None:
    """A test, or a fixture, that fails with the fault's error, or with another one, tells of it there and once."""
    strict.makepyfile(
        LOCK
        + """
def test_same():
    asyncio.run(both())

def test_other():
    with pytest.raises(RuntimeError):
        asyncio.run(both())
    assert not "sound"

@pytest.fixture
def failing():
    asyncio.run(both())

def test_fixture(failing):
    pass
"""
    )
    result = run(strict, "-k", "not second")
    result.assert_outcomes(passed=1, failed=2, errors=1)
    told = result.stdout.str().partition("short test summary info")[0]  # which repeats all of it where CI is set
    assert told.count("error[LOOP103]") == 3


THREADS = (
    HEAD
    + """
import _thread

begun, never = threading.Event(), threading.Event()

def in_c():
    threading.current_thread()  # makes a dummy of it
    begun.set()
    never.wait()

def test_dummy():
    _thread.start_new_thread(in_c, ())
    assert begun.wait(5)

@pytest.fixture(scope="module")
def other():
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    return thread, end

def test_reused(other):
    other[1].set()
    other[0].join()
    for _ in range(1000):
        end = threading.Event()
        thread = threading.Thread(target=end.wait, daemon=True)
        thread.start()
        if thread.ident == other[0].ident:
            return
        end.set()
        thread.join()
    pytest.skip("no ident was used again")
"""
)


def test_threads_of_others(strict: pytest.Pytester) -> None:
    """A thread that Python did not start harms nothing; one that got an ended one's ident is told of."""
    strict.makepyfile(THREADS)
    result = run(strict)
    result.assert_outcomes(passed=2, errors=1)
    assert "::test_reused left behind:" in result.stdout.str()


def test_level_of_before(strict: pytest.Pytester) -> None:
    """Who traces anyway goes on as before when the strict run ends."""
    strict.makepyfile("def test_one(): pass\n")
    strict.makeconftest(
        "from homeloop import trace\ntrace.enable(1)\n"
        "class Last:\n    def pytest_unconfigure(self): print('level', trace.level())\n"
        "import pytest\n@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_configure(config): config.pluginmanager.register(Last())\n"
    )
    assert "level 1" in run(strict).stdout.str()


def test_off(pytester: pytest.Pytester) -> None:
    """Without the option pytest loads our module by its entry point, not homeloop, and asyncio is as it was."""
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider -p no:asyncio\n")
    pytester.makepyfile(
        "import asyncio, sys\n"
        "def test_off():\n"
        "    assert 'homeloop_pytest' in sys.modules\n"
        "    assert 'homeloop' not in sys.modules\n"
        "    assert asyncio.Event.set.__module__ == 'asyncio.locks'\n"
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_tracing_is_off_afterwards() -> None:
    """This very run is not strict."""
    assert "homeloop.pytest_plugin" not in sys.modules
