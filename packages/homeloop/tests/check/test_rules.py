"""Every rule finds its example and not the mended one; suppressing, choosing, and what must not be found."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from homeloop.cli._check._catalogue import RULES
from homeloop.cli._check._config import Config
from homeloop.cli._check._examine import examine
from homeloop.cli._check._examples_bad import BAD
from homeloop.cli._check._examples_good import GOOD
from homeloop.cli._check._examples_more import MORE, Example
from homeloop.diagnosis import CODES

Found = Callable[..., list[str]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_examples(rule: object, found: Found) -> None:
    """The bad example of a page breaks that rule and no other, the good one none; both are Python."""
    code = rule.code  # type: ignore[attr-defined]
    assert [each.partition(" ")[2] for each in found(example=BAD[code])] == [code]
    assert found(example=GOOD[code]) == []


@pytest.mark.parametrize("example", MORE, ids=lambda example: example.title)
def test_more_examples(example: Example, found: Found) -> None:
    """So do the other examples of a page."""
    assert [each.partition(" ")[2] for each in found(example=example.bad)] == [example.code]
    assert found(example=example.good) == []


def test_catalogue() -> None:
    """Each rule has examples, and names faults that there are."""
    assert set(BAD) == set(GOOD) == {rule.code for rule in RULES}
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert {code for rule in RULES for code in rule.leads_to} <= {code.code for code in CODES}


def test_pages() -> None:
    """docs/rules says what the code says, and shows what it prints."""
    pages = Path(__file__).with_name("pages.py")
    ended = subprocess.run(
        [sys.executable, pages, "--check"], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


CLIENT = "import httpx\nclient = httpx.AsyncClient()\nasync def get(url):\n    return await client.get(url)\n"


@pytest.mark.parametrize(
    "caller",
    [
        "import asyncio\nfrom shop.http import get\nasync def main():\n    await get('u')\nasyncio.run(main())\n",
        "import asyncio, sys\nfrom shop.http import get\n"
        "if sys.argv[1] == 'a':\n    asyncio.run(get('a'))\nelse:\n    asyncio.run(get('b'))\n",
        "from fastapi import FastAPI\nfrom shop.http import get\napp = FastAPI()\n"
        "@app.get('/')\nasync def root():\n    await get('u')\n",
        "import asyncio, threading\nfrom shop.http import get\nasync def main():\n    await get('u')\n"
        "def serve():\n    asyncio.run(main())\nthreading.Thread(target=serve).start()\n",
        "import homeloop\nfrom shop.http import get\nfrom celery import Celery\napp = Celery()\n"
        "@app.task\ndef job():\n    return homeloop.run(get, 'u')\n",
        "import asyncio\nfrom shop.http import client, get\n"
        "async def main():\n    await get('u')\n    await client.aclose()\n"
        "for _ in range(2):\n    asyncio.run(main())\n",
        "import asyncio\ndef main():\n    asyncio.run(asyncio.sleep(0))\nfor _ in range(2):\n    main()\n",
    ],
    ids=["one run", "either run", "endpoints", "one thread", "one loop", "closed each time", "not used"],
)
def test_client_of_one_loop(caller: str, found: Found) -> None:
    """A client in a module is no fault as long as one loop uses it."""
    assert found(shop____init__="", shop__http=CLIENT, shop__app=caller) == []


@pytest.mark.parametrize(
    ("caller", "code"),
    [
        ("for _ in range(2):\n    asyncio.run(get('u'))\n", "http.py:2 HL101"),
        ("asyncio.run(get('u'))\nasyncio.run(http.client.get('u'))\n", "http.py:2 HL101"),
        ("def f(u):\n    return asyncio.run(get(u))\nf('a')\nf('b')\n", "http.py:2 HL101"),
        (
            "import flask\napp = flask.Flask('a')\n@app.route('/')\ndef f():\n    return asyncio.run(get('u'))\n",
            "http.py:2 HL101",
        ),
        (
            "from celery import shared_task\n@shared_task\ndef f():\n    return asyncio.run(get('u'))\n",
            "app.py:7 HL104",
        ),
        (
            "from celery import shared_task\ndef g():\n    loop = asyncio.new_event_loop()\n"
            "    return loop.run_until_complete(get('u'))\n@shared_task\ndef f():\n    return g()\n",
            "app.py:7 HL104",
        ),
    ],
    ids=["in a loop", "two runs", "two calls", "endpoint", "task", "task, indirectly"],
)
def test_client_of_several_loops(caller: str, code: str, found: Found) -> None:
    """The same client is a fault where several loops reach it, through imports and calls."""
    head = "import asyncio\nfrom shop import http\nfrom .http import get\n"
    assert found(shop____init__="", shop__http=CLIENT, shop__app=head + caller) == [code]


@pytest.mark.parametrize(
    ("key", "codes"),
    [
        ("loop", []),
        ("id(loop)", []),
        ("asyncio.get_running_loop()", []),
        ("(url, loop)", []),
        ("url", ["app.py:10 HL103"]),
    ],
)
def test_clients_by_key(key: str, codes: list[str], found: Found) -> None:
    """Clients that are kept by the loop that uses them are no fault; by any other key they are."""
    source = f"""import asyncio
import httpx
clients = {{}}

async def get(url):
    loop = asyncio.get_running_loop()
    try:
        client = clients[{key}]
    except KeyError:
        client = clients[{key}] = httpx.AsyncClient()
    return await client.get(url)

for url in "ab":
    asyncio.run(get(url))
"""
    assert found(app=source) == codes


@pytest.mark.parametrize("modules", ["one", "many"])
def test_work_grows_with_the_program(modules: str, tmp_path: Path) -> None:
    """Twice as many clients and runs, or modules, are about twice the work, not four times; measured in calls."""

    def work(number: int) -> int:
        folder = tmp_path / str(number)
        folder.mkdir()
        parts = [
            f"c{each} = httpx.AsyncClient()\nasync def f{each}():\n    await c{each}.get('u')\n"
            f"def g{each}():\n    asyncio.run(f{each}())\ng{each}()\ng{each}()\n"
            for each in range(number)
        ]
        for name, part in enumerate(parts if modules == "many" else ["".join(parts)]):
            (folder / f"app{name}.py").write_text("import asyncio, httpx\n" + part)
        calls = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            result = examine([folder], Config())
        finally:
            sys.setprofile(before)
        assert [each.code for each in result.findings] == ["HL101"] * number
        return calls

    assert work(80) < 3 * work(40)


def test_long_chains(found: Found) -> None:
    """A chain of hundreds of calls, as builders of queries make them, keeps nothing else from being found."""
    chain = "import query\nasync def build():\n    return query.one()" + ".where(1)" * 400 + ".all()\n"
    caller = "import asyncio\nfrom http_ import get\nfor _ in range(2):\n    asyncio.run(get('u'))\n"
    assert found(query_=chain, http_=CLIENT, app=caller) == ["http_.py:2 HL101"]


def test_names_that_only_look_alike(found: Found) -> None:
    """Other libraries' decorators and classes are not taken for those that the rules know."""
    assert (
        found(
            jobs="""
            import asyncio
            from prefect import task
            from procrastinate import App
            from mine import AsyncClient, asyncpg

            app = App()
            pool = asyncpg.create_pool()

            @app.task
            async def one():
                await pool.fetch("select 1")

            @task
            async def two():
                pass

            class Runner:
                def run(self, coroutine): ...

            def three():
                return Runner().run(AsyncClient().get("u"))

            class Job:
                def run_until_complete(self): ...

            async def four():
                return Job().run_until_complete()

            async def five(container):
                await container.run_until_complete()
            """,
        )
        == []
    )


def test_asks_before_it_starts_a_loop(found: Found) -> None:
    """A function that looks whether a loop runs, and a guard in its caller, are no faults."""
    assert (
        found(
            bridge="""
            import asyncio

            async def work(): ...

            def call():
                try:
                    asyncio.get_running_loop()
                except RuntimeError:
                    return asyncio.run(work())
                raise RuntimeError("await work() instead")

            async def main():
                call()
            """
        )
        == []
    )


def test_suppressed(found: Found) -> None:
    """A comment suppresses the rules that it names, by code or name, or all."""
    assert found(a="import nest_asyncio\nnest_asyncio.apply()  # homeloop: ignore\n") == []
    assert found(a="import nest_asyncio\nnest_asyncio.apply()  # homeloop: ignore[HL101, nested-loops]\n") == []
    assert found(a="import nest_asyncio\nnest_asyncio.apply()  # homeloop: ignore[HL101]\n") == ["a.py:2 HL114"]


def test_made_on_the_thread_that_touches_it(found: Found) -> None:
    """An event that a thread makes for its own loop may be set there."""
    assert (
        found(
            proxy="""
            import asyncio
            import threading

            class Proxy:
                def start(self):
                    threading.Thread(target=self.serve).start()

                def serve(self):
                    self.ready = asyncio.Event()
                    self.ready.set()
                    asyncio.run(self.ready.wait())
            """
        )
        == []
    )


@pytest.mark.parametrize(
    ("policy", "codes"),
    [
        ("uvloop.EventLoopPolicy()", ["app.py:5 HL112"]),
        ("AnyThreadEventLoopPolicy()", []),
    ],
)
def test_policies_of_loops(policy: str, codes: list[str], found: Found) -> None:
    """Where a policy is set that may have a loop for every thread, nothing is said of threads without one."""
    source = f"""import asyncio, threading, uvloop
from tornado.platform.asyncio import AnyThreadEventLoopPolicy

def job():
    asyncio.get_event_loop()

asyncio.set_event_loop_policy({policy})
threading.Thread(target=job).start()
"""
    assert found(app=source) == codes
