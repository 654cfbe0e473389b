"""Loops are found whoever starts them: helpers, decorators, classes, threads; those that stay are none."""

import re
import textwrap
from collections.abc import Callable

import pytest

Found = Callable[..., list[str]]

HELD = """
import asyncio
import httpx
from celery import Celery, Task
app = Celery("jobs")
client = httpx.AsyncClient()

async def get(url):
    return await client.get(url)
"""

# What is found stands beside it; each begins with HELD.
STARTED = {
    "helper": """
        def bridge(c):
            return asyncio.run(c)
        @app.task
        def f(u):
            return bridge(get(u))  # HL104
    """,
    "helper of a helper": """
        def inner(c):
            return asyncio.run(asyncio.wait_for(c, 5))
        def bridge(c):
            return inner(c)
        @app.task
        def f(u):
            return bridge(get(u))  # HL104
    """,
    "helper that takes a function": """
        def bridge(fn, *args):
            loop = asyncio.new_event_loop()
            try:
                return loop.run_until_complete(fn(*args))
            finally:
                loop.close()
        @app.task
        def f(u):
            return bridge(get, u)  # HL104
    """,
    "factory of loops": """
        def make():
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            return loop
        @app.task
        def f(u):
            loop = make()
            return loop.run_until_complete(get(u))  # HL104
    """,
    "method": """
        class Bridge:
            def run(self, coroutine):
                return asyncio.run(coroutine)
        bridge = Bridge()
        @app.task
        def f(u):
            return bridge.run(get(u))  # HL104
    """,
    "method of a task's class": """
        class Base(Task):
            def wait_for(self, coroutine, timeout):
                return asyncio.run(asyncio.wait_for(coroutine, timeout))
        @app.task(bind=True, base=Base, name="f")
        def f(self, u):
            return self.wait_for(get(u), timeout=5)  # HL104
    """,
    "class of threads that takes the coroutine": """
        import threading
        class Runner(threading.Thread):
            def __init__(self, coroutine):
                super().__init__()
                self.coroutine = coroutine
            def run(self):
                self.result = asyncio.run(self.coroutine)
        def bridge(coroutine):
            runner = Runner(coroutine)
            runner.start()
            runner.join()
            return runner.result
        @app.task
        def f(u):
            return bridge(get(u))  # HL104
    """,
    "decorator of a class's method": """
        class Jobs:
            def synchronous(self, fn):
                def wrapper(*args):
                    return asyncio.run(fn(*args))
                return wrapper
        jobs = Jobs()
        @app.task
        @jobs.synchronous  # HL104
        async def f(u):
            await get(u)
    """,
    "class as a decorator": """
        class Synchronous:
            def __init__(self, fn):
                self.fn = fn
            def __call__(self, *args):
                return asyncio.run(self.fn(*args))
        @app.task
        @Synchronous  # HL104
        async def f(u):
            await get(u)
    """,
    "thread pool": """
        from concurrent.futures import ThreadPoolExecutor
        def bridge(coroutine):
            with ThreadPoolExecutor(1) as threads:
                return threads.submit(asyncio.run, coroutine).result()
        @app.task
        def f(u):
            return bridge(get(u))  # HL104
    """,
    "thread": """
        import threading
        def bridge(coroutine):
            def target():
                asyncio.run(coroutine)
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        @app.task
        def f(u):
            return bridge(get(u))  # HL104
    """,
    "decorator": """
        from functools import wraps
        def sync(fn):
            @wraps(fn)
            def wrapper(*args):
                return asyncio.run(fn(*args))
            return wrapper
        @app.task
        @sync  # HL104
        async def f(u):
            return await get(u)
    """,
    "decorator with arguments": """
        def sync(timeout):
            def decorate(fn):
                def wrapper(*args):
                    return asyncio.run(asyncio.wait_for(fn(*args), timeout))
                return wrapper
            return decorate
        @app.task
        @sync(timeout=5)  # HL104
        async def f(u):
            return await get(u)
    """,
    "decorator without at sign": """
        def sync(fn):
            def wrapper(*args):
                return asyncio.run(fn(*args))
            return wrapper
        get_now = sync(get)
        @app.task
        def f(u):
            return get_now(u)  # HL104
    """,
    "asgiref's decorator": """
        from asgiref.sync import async_to_sync
        @app.task
        @async_to_sync  # HL104
        async def f(u):
            await get(u)
    """,
    "asgiref's, without at sign": """
        from asgiref.sync import async_to_sync
        get_now = async_to_sync(get)
        @app.task
        def f(u):
            return get_now(u)  # HL104
    """,
    "runner": """
        @app.task
        def f(u):
            with asyncio.Runner() as runner:
                return runner.run(get(u))  # HL104
    """,
    "class that calls": """
        class AsyncTask(Task):
            def __call__(self, *args):
                return asyncio.run(self.run(*args))
        @app.task(base=AsyncTask)
        async def f(u):  # HL104
            return await get(u)
    """,
    "class that runs": """
        class Fetch(Task):
            def run(self, u):
                return asyncio.run(get(u))  # HL104
        app.register_task(Fetch())
    """,
    "attribute of a class": """
        class Fetch(app.Task):
            def __init__(self):
                self.own = httpx.AsyncClient()
            def run(self, u):
                return asyncio.run(self.own.get(u))  # HL104
    """,
    "property of a base": """
        class Base(Task):
            _own = None
            @property
            def own(self):
                if self._own is None:
                    self._own = httpx.AsyncClient()
                return self._own
        @app.task(base=Base, bind=True)
        def f(self, u):
            async def go():
                return await self.own.get(u)
            return asyncio.run(go())  # HL104
    """,
    "cached property of a base": """
        from functools import cached_property
        class Base(Task):
            @cached_property
            def own(self):
                return httpx.AsyncClient()
        class Special(Base):
            pass
        @app.task(base=Special, bind=True)
        def f(task, u):
            return asyncio.run(task.own.get(u))  # HL104
    """,
    "attribute of a module's object": """
        class Api:
            def __init__(self):
                self.own = httpx.AsyncClient()
            def fetch(self, u):
                return asyncio.run(self._fetch(u))  # HL104
            async def _fetch(self, u):
                return await self.own.get(u)
        api = Api()
        @app.task
        def f(u):
            return api.fetch(u)
    """,
    "field of a dataclass": """
        from dataclasses import dataclass, field
        @dataclass
        class Api:
            own: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)
            async def get(self, u):
                return await self.own.get(u)
        api = Api()
        @app.task
        def f(u):
            return asyncio.run(api.get(u))  # HL104
    """,
    "field of a dataclass, by a function": """
        import attrs
        def make(timeout):
            return httpx.AsyncClient(timeout=timeout)
        @attrs.define
        class Api:
            own = attrs.field(factory=lambda: make(3))
        api = Api()
        @app.task
        def f(u):
            return asyncio.run(api.own.get(u))  # HL104
    """,
    "a thread with a session": """
        import threading
        class Worker(threading.Thread):
            def __init__(self, session):
                super().__init__()
                self.session = session
            def run(self):
                asyncio.run(self.session.get('u'))
        async def main():
            async with httpx.AsyncClient() as session:
                Worker(session).start()  # HL116
    """,
    "asyncio.run in a thread pool": """
        from concurrent.futures import ThreadPoolExecutor
        async def main():
            async with httpx.AsyncClient() as own:
                with ThreadPoolExecutor() as threads:
                    threads.submit(asyncio.run, own.get('u')).result()  # HL116
    """,
}

# Here it is HELD's client that is found.
SHARED = {
    "threads of a class": """
        import threading
        class Worker(threading.Thread):
            def run(self):
                asyncio.run(get('u'))
        for _ in range(2):
            Worker().start()
    """,
    "a thread beside the loop": """
        import threading
        class Worker(threading.Thread):
            def run(self):
                asyncio.run(self.work())
            async def work(self):
                await get('u')
        async def main():
            Worker().start()
            await get('u')
        asyncio.run(main())
    """,
    "async views of flask": """
        import flask
        web = flask.Flask('a')
        @web.get('/')
        async def f():
            return await get('u')
    """,
    "a thread that a server starts": """
        import threading
        from fastapi import FastAPI
        web = FastAPI()
        class Worker(threading.Thread):
            def run(self):
                asyncio.run(get('u'))
        @web.on_event("startup")
        async def start():
            Worker().start()
        @web.get('/')
        async def f():
            return await get('u')
    """,
    "a thread beside a server": """
        import threading
        from fastapi import FastAPI
        web = FastAPI()
        def serve():
            asyncio.run(get('u'))
        threading.Thread(target=serve).start()
        @web.get('/')
        async def f():
            return await get('u')
    """,
}

KEPT = {
    "loop of a module": """
        loop = asyncio.new_event_loop()
        def bridge(c):
            return loop.run_until_complete(c)
        @app.task
        def f(u):
            return bridge(get(u))
    """,
    "cached loop": """
        import functools
        @functools.lru_cache
        def loop():
            return asyncio.new_event_loop()
        @app.task
        def f(u):
            return loop().run_until_complete(get(u))
    """,
    "runner of a module": """
        runner = asyncio.Runner()
        @app.task
        def f(u):
            return runner.run(get(u))
    """,
    "one runner for all": """
        with asyncio.Runner() as runner:
            for u in 'ab':
                runner.run(get(u))
    """,
    "one loop for two": """
        def main():
            loop = asyncio.new_event_loop()
            loop.run_until_complete(get('a'))
            loop.run_until_complete(get('b'))
        main()
    """,
    "homeloop's decorator": """
        import homeloop
        def sync(fn):
            def wrapper(*args):
                return homeloop.run(fn, *args)
            return wrapper
        @app.task
        @sync
        async def f(u):
            return await get(u)
    """,
    "client of the coroutine": """
        def bridge(c):
            return asyncio.run(c)
        async def own(u):
            async with httpx.AsyncClient() as c:
                return await c.get(u)
        @app.task
        def f(u):
            return bridge(own(u))
    """,
    "made by every access": """
        class Base(Task):
            @property
            def own(self):
                return httpx.AsyncClient()
        @app.task(base=Base, bind=True)
        def f(self, u):
            return asyncio.run(self.own.get(u))
    """,
    "object of the call": """
        class Api:
            def __init__(self):
                self.own = httpx.AsyncClient()
            async def get(self, u):
                return await self.own.get(u)
        @app.task
        def f(u):
            api = Api()
            return asyncio.run(api.get(u))
    """,
    "fields of the call's object": """
        from dataclasses import dataclass, field
        @dataclass
        class Api:
            own: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)
            seen: list = field(default_factory=list)
            async def get(self, u):
                return await self.own.get(u)
        @app.task
        def f(u):
            return asyncio.run(Api().get(u))
    """,
    "a thread of a server's that has its own": """
        import threading
        from fastapi import FastAPI
        web = FastAPI()
        async def own():
            async with httpx.AsyncClient() as c:
                await c.get('u')
        @web.on_event("startup")
        async def start():
            threading.Thread(target=asyncio.run, args=(own(),)).start()
        @web.get('/')
        async def f():
            return await get('u')
    """,
    "a script beside a server": """
        from fastapi import FastAPI
        web = FastAPI()
        @web.get('/')
        async def f():
            return await get('u')
        if __name__ == "__main__":
            asyncio.run(get('u'))
    """,
    "one thread": """
        import threading
        class Worker(threading.Thread):
            def run(self):
                asyncio.run(get('u'))
        Worker().start()
    """,
    "clients of the threads": """
        import threading
        class Worker(threading.Thread):
            def __init__(self, url):
                super().__init__()
                self.url = url
            def run(self):
                asyncio.run(self.go())
            async def go(self):
                async with httpx.AsyncClient() as c:
                    await c.get(self.url)
        for u in 'ab':
            Worker(u).start()
    """,
    "decorator that awaits": """
        def retry(times):
            def decorate(fn):
                async def wrapper(*args):
                    return await fn(*args)
                return wrapper
            return decorate
        @retry(3)
        async def more(u):
            return await get(u)
        asyncio.run(more('u'))
    """,
}


@pytest.mark.parametrize("source", STARTED.values(), ids=STARTED)
def test_loops_that_others_start(source: str, found: Found) -> None:
    """It does not matter who starts a loop, and where the client is kept that belongs to another one."""
    module = HELD + textwrap.dedent(source)
    expected = [
        f"jobs.py:{number} {mark[1]}"
        for number, line in enumerate(module.splitlines(), 1)
        if (mark := re.search(r"# (HL\d+)$", line))
    ]
    assert len(expected) == 1
    assert found(jobs=module) == expected


@pytest.mark.parametrize("source", SHARED.values(), ids=SHARED)
def test_loops_beside_each_other(source: str, found: Found) -> None:
    """A client is found that the loops of threads, views and servers share."""
    line = HELD.splitlines().index("client = httpx.AsyncClient()") + 1
    assert found(jobs=HELD + textwrap.dedent(source)) == [f"jobs.py:{line} HL101"]


@pytest.mark.parametrize("source", KEPT.values(), ids=KEPT)
def test_loops_that_stay(source: str, found: Found) -> None:
    """One loop, or a client for each, is no fault, through whatever helpers."""
    assert found(jobs=HELD + textwrap.dedent(source)) == []


def test_helpers_of_other_modules(found: Found) -> None:
    """A helper and a client may be imported, under whatever name."""
    assert found(
        shop____init__="",
        shop__aio="import asyncio\ndef run_sync(coroutine):\n    return asyncio.run(coroutine)\n",
        shop__tools="from .aio import run_sync as wait\n",
        shop__http="import httpx\nclient = httpx.AsyncClient()\nasync def get(u):\n    await client.get(u)\n",
        shop__jobs="from celery import shared_task\nfrom shop import tools\nfrom shop.http import get\n"
        "@shared_task\ndef f(u):\n    return tools.wait(get(u))\n",
    ) == ["jobs.py:6 HL104"]
