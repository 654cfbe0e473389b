"""For each code a few lines that go wrong, and the same done right."""

from homeloop.diagnosis._codes import Kind

EXAMPLES: dict[Kind, tuple[str, str]] = {
    Kind.REUSE_ACROSS_RUNS: (
        (
            "client = httpx.AsyncClient()\n"
            "\n"
            "\n"
            "@app.task\n"
            "def fetch(url):\n"
            "    return asyncio.run(client.get(url)).text"
        ),
        (
            "client = LoopLocal(httpx.AsyncClient)\n"
            "\n"
            "\n"
            "async def get(url):\n"
            "    return (await (await client.get()).get(url)).text\n"
            "\n"
            "\n"
            "@app.task\n"
            "def fetch(url):\n"
            "    return homeloop.run(get, url)"
        ),
    ),
    Kind.TWO_LIVE_LOOPS: (
        (
            '@app.get("/users")\n'
            "def users():  # FastAPI runs it in a thread\n"
            "    return asyncio.run(app.state.pool.fetch(QUERY))"
        ),
        ('@app.get("/users")\nasync def users():\n    return await app.state.pool.fetch(QUERY)'),
    ),
    Kind.PRIMITIVE_REBIND: (
        ("lock = asyncio.Lock()\n\n\nasync def work():\n    async with lock:\n        ..."),
        ("lock = LoopLocal(asyncio.Lock)\n\n\nasync def work():\n    async with await lock.get():\n        ..."),
    ),
    Kind.LOOP_CAPTURED: (
        (
            "class Service:\n"
            "    def __init__(self):\n"
            "        self.loop = asyncio.get_event_loop()\n"
            "\n"
            "    def start(self):\n"
            "        self.loop.create_task(work())"
        ),
        ("class Service:\n    def start(self):\n        homeloop.submit(work)"),
    ),
    Kind.UNSAFE_CROSS_THREAD: (
        ("def on_progress(percent):  # called by a library on its own thread\n    queue.put_nowait(percent)"),
        ("on_progress = homeloop.bind_callback(queue.put)  # bound where the loop runs"),
    ),
    Kind.DEAD_BACKGROUND_WORKER: (
        ("asyncio.run(pool.open())\nasyncio.run(query(pool))  # works until a connection breaks"),
        ("homeloop.run(pool.open)\nhomeloop.run(query, pool)"),
    ),
    Kind.TEST_LOOP_MISMATCH: (
        (
            '@pytest_asyncio.fixture(scope="session", loop_scope="session")\n'
            "async def pool(): ...\n"
            "\n"
            "\n"
            "@pytest.mark.asyncio\n"
            "async def test_query(pool): ..."
        ),
        ('@pytest.mark.asyncio(loop_scope="session")\nasync def test_query(pool): ...'),
    ),
    Kind.FORK_INHERITED: (
        ("pool = loop.run_until_complete(open_pool())  # at import, before Celery forks"),
        ("pool = LoopLocal(open_pool)  # opened on first use, in each child"),
    ),
    Kind.NESTED_RUN: (
        (
            "def predict(text):\n"
            "    return asyncio.run(ask(text))\n"
            "\n"
            "\n"
            "async def endpoint(text):\n"
            "    return predict(text)"
        ),
        ("async def endpoint(text):\n    return await ask(text)"),
    ),
    Kind.NO_CURRENT_LOOP: (
        ("def task():  # on a worker's thread\n    asyncio.get_event_loop().run_until_complete(work())"),
        ("def task():\n    homeloop.run(work)"),
    ),
    Kind.NO_CURRENT_TASK: (
        ("loop.call_soon(lambda: fetch().send(None))  # fetch() uses asyncio.timeout()"),
        ("asyncio.create_task(fetch())"),
    ),
    Kind.LOOP_STOPPED_EARLY: (
        ("signal.signal(SIGTERM, lambda *_: loop.stop())\nloop.run_until_complete(main())"),
        ("loop.add_signal_handler(SIGTERM, main_task.cancel)"),
    ),
    Kind.SYNC_BRIDGE_DEADLOCK: (
        ("async def endpoint():\n    return asyncio.run_coroutine_threadsafe(work(), loop).result()"),
        ("async def endpoint():\n    return await work()"),
    ),
    Kind.GREENLET_LOOP_COLLISION: (
        ("@app.task  # worker -P gevent\ndef fetch():\n    return asyncio.run(work())"),
        ("@app.task\ndef fetch():\n    return homeloop.run(work)"),
    ),
    Kind.NEST_UNPATCHABLE: (
        ("nest_asyncio.apply()  # under uvicorn's uvloop\nasyncio.run(work())"),
        ("await work()"),
    ),
    Kind.LOOP_TYPE_MISMATCH: (
        ("asyncio.run(connect())  # on Windows"),
        ("with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:\n    runner.run(connect())"),
    ),
    Kind.GLOBAL_SINGLE_POLLER: (
        ("threading.Thread(target=asyncio.run, args=(call_grpc(),)).start()"),
        ("homeloop.run(call_grpc)  # from any thread, one loop"),
    ),
    Kind.TASK_SPILLOVER: (
        ("async def node(state):\n    asyncio.create_task(save(state))\n    return state"),
        ("async def node(state):\n    await save(state)\n    return state"),
    ),
    Kind.LATE_CLEANUP: (
        ("asyncio.run(main(client))\natexit.register(lambda: asyncio.run(client.aclose()))"),
        ("async def main():\n    async with httpx.AsyncClient() as client:\n        ..."),
    ),
    Kind.ASYNCGEN_CLEANUP: (
        ("async for chunk in stream():\n    return chunk  # the generator stays suspended"),
        ("async with aclosing(stream()) as chunks:\n    async for chunk in chunks:\n        return chunk"),
    ),
    Kind.USE_AFTER_CONTEXT_EXIT: (
        (
            "async with AsyncPostgresSaver.from_conn_string(DSN) as saver:\n"
            "    graph = builder.compile(checkpointer=saver)\n"
            "await graph.ainvoke(state, config)"
        ),
        (
            "async with AsyncPostgresSaver.from_conn_string(DSN) as saver:\n"
            "    graph = builder.compile(checkpointer=saver)\n"
            "    await graph.ainvoke(state, config)"
        ),
    ),
}
