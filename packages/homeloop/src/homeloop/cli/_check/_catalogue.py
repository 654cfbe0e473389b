"""The rules: what each finds, why that goes wrong, and what to change."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """
    A rule.

    Attributes:
        code: For instance ``HL101``.
        name: Its other name, for comments and configuration.
        title: One line.
        why: What happens, for somebody who has never read about event loops.
        help: What to change, in a line.
        leads_to: Codes of the faults that are seen when the program runs; `homeloop explain` has them.
    """

    code: str
    name: str
    title: str
    why: str
    help: str
    leads_to: tuple[str, ...]


RULES: tuple[Rule, ...] = (
    Rule(
        "HL101",
        "client-in-module",
        "a client of a module is used by several loops",
        "A pool, an engine or a client that a module makes serves the loop that uses it first: its "
        "sockets and futures belong to that one. A thread, an endpoint or a script that calls "
        "asyncio.run() again comes with another loop. Reported only if such calls are found; one loop for"
        " the whole program is fine.",
        "make it a LoopLocal, which has one for every loop; or keep one loop: homeloop.run(fn, ...)",
        ("LOOP101", "LOOP102"),
    ),
    Rule(
        "HL102",
        "client-in-cache",
        "a client behind a cache is used by several loops",
        "lru_cache and its like keep what the first call made, with the loop of that call. A later "
        "asyncio.run() gets the same client on a new loop. Reported only if such calls are found.",
        "replace the cached function by a LoopLocal over the factory",
        ("LOOP101", "LOOP102"),
    ),
    Rule(
        "HL103",
        "client-kept",
        "a client that is made once and kept is used by several loops",
        "`if client is None: client = ...`, an attribute of a class or of an object that a module keeps: "
        "made by the first loop, then used by the next. Reported only if several loops are found to use "
        "it.",
        "make it a LoopLocal, which opens on first use, once for every loop",
        ("LOOP101", "LOOP102"),
    ),
    Rule(
        "HL104",
        "run-in-task",
        "a Celery task starts a loop of its own for a shared client",
        "Every call of the task makes a loop, and closes it. The client was made once in the worker "
        "process, and belongs to the loop of the first call: that one succeeds, so tests pass; the next "
        "fails.",
        "call homeloop.run(fn, ...) instead of asyncio.run(fn(...)): one loop for the whole process",
        ("LOOP101", "LOOP206"),
    ),
    Rule(
        "HL105",
        "async-task",
        "a Celery task is an async function",
        "Celery calls the function, gets a coroutine that nobody awaits and tries to store that: 'Object "
        "of type coroutine is not JSON serializable', or success without a result. Not reported where the"
        " project imports homeloop's adapter.",
        "homeloop.adapters.celery.install(app) runs such tasks on every pool",
        (),
    ),
    Rule(
        "HL106",
        "saver-not-entered",
        "a LangGraph saver's context manager is not entered",
        "AsyncPostgresSaver.from_conn_string() and its like return an async context manager. Only `async "
        "with` connects and gives the saver; the manager itself has none of its methods.",
        "async with ....from_conn_string(...) as saver: for as long as the graph runs",
        ("LOOP304",),
    ),
    Rule(
        "HL107",
        "waits-for-own-loop",
        "a loop's thread blocks until the loop has done something",
        "run_coroutine_threadsafe(...).result() is for other threads. On the loop's own one it blocks the"
        " very loop that it waits for: for ever, without a message. Reported in coroutines and in "
        "functions that coroutines call.",
        "await the coroutine; or move the sync function off the loop: await asyncio.to_thread(fn)",
        ("LOOP205",),
    ),
    Rule(
        "HL108",
        "run-inside-loop",
        "a loop is started by code that a coroutine calls",
        "asyncio.run(), run_until_complete() and async_to_sync() refuse to work on a thread whose loop "
        "runs. Reported where they stand in a coroutine function, or in a sync function that one calls; "
        "not where the function asks first whether a loop runs.",
        "await all the way; or await asyncio.to_thread(fn), and in fn homeloop.run(...)",
        ("LOOP201",),
    ),
    Rule(
        "HL109",
        "shared-primitive",
        "a lock, event, queue or semaphore is used by several loops",
        "asyncio's primitives bind to the first loop on which somebody has to wait for them, and refuse "
        "others from then on. So it works until there is load. Reported only if several loops are found "
        "to use it.",
        "make it a LoopLocal(asyncio.Lock); where threads must exclude each other, a threading.Lock",
        ("LOOP103",),
    ),
    Rule(
        "HL110",
        "needs-loop-at-import",
        "something that needs a running loop is called when a module is imported",
        "aiohttp's session, create_task and get_running_loop ask for the running loop. While a module is "
        "imported there is none, or, worse, it is that of whoever imports it first.",
        "make it in a coroutine; or LoopLocal(factory) in the module, which opens on first use",
        ("LOOP202",),
    ),
    Rule(
        "HL111",
        "touched-from-thread",
        "a queue, event, future or loop is touched by another thread",
        "put_nowait(), set(), set_result(), call_soon() and create_task() are for the loop's own thread. "
        "From another one the loop is not woken, and who waits sleeps on. Reported where the function is "
        "found to run on a thread.",
        "loop.call_soon_threadsafe(queue.put_nowait, item); or homeloop.bind_callback(queue.put)",
        ("LOOP105",),
    ),
    Rule(
        "HL112",
        "no-loop-in-thread",
        "a thread asks for a loop that it does not have",
        "asyncio.get_event_loop() makes a loop on the main thread only, and in newest versions not even "
        "there. In a thread, and in a sync endpoint of FastAPI, which runs on one, it raises.",
        "homeloop.run(fn, ...) runs async code from any thread",
        ("LOOP202",),
    ),
    Rule(
        "HL113",
        "closed-in-new-loop",
        "a new loop is started to close what belongs to another one",
        "At exit, or in __del__, the loop that opened the client is gone. asyncio.run(client.aclose()) "
        "makes another one, which cannot reach the first one's sockets: an error that is printed as "
        "ignored, or a hang.",
        "close it where it was opened: async with, or a finally in the same asyncio.run(); LoopLocal does"
        " so by itself",
        ("LOOP302",),
    ),
    Rule(
        "HL114",
        "nested-loops",
        "asyncio is patched so that loops run inside loops",
        "nest_asyncio replaces asyncio's methods for the whole process. It cannot patch uvloop, and a "
        "nested run waits for ever for a lock that the code below it holds.",
        "remove it: await; or homeloop.run(fn, ...) on a thread that is not the loop's",
        ("LOOP207",),
    ),
    Rule(
        "HL115",
        "returned-from-block",
        "what an `async with` closes is returned out of it",
        "A connection, a client or a graph with a saver leaves the block that closes it. Who uses it then"
        " finds it closed, and the message sounds as if the server had done it.",
        "use it inside the block; or make the function an async context manager that yields it",
        ("LOOP304",),
    ),
    Rule(
        "HL116",
        "client-of-outer-loop",
        "a function inside a coroutine starts another loop for the coroutine's client",
        "The coroutine has opened a client on the loop that runs it. A function that it hands to a thread"
        " starts a loop of its own there and uses that client on it: two loops at once, which for some "
        "drivers ends the process.",
        "come back to the client's loop: asyncio.run_coroutine_threadsafe(fn(), loop).result() on the thread",
        ("LOOP102",),
    ),
    Rule(
        "HL117",
        "fixture-on-other-loop",
        "a fixture opens a client on another loop than its tests'",
        "pytest-asyncio runs a fixture of a session, module or class on a loop of that scope, and every "
        "test, unless told otherwise, on one of its own. The test then uses a client of another loop.",
        '@pytest.mark.asyncio(loop_scope="session"), or asyncio_default_test_loop_scope in the settings',
        ("LOOP107",),
    ),
    Rule(
        "HL118",
        "opened-before-fork",
        "a client is opened at import and used in forked Celery workers",
        "Celery's prefork pool imports the module, then forks. A connection that was opened before is "
        "shared by all children, who read each other's answers; the loop's own selector is shared, too.",
        "make it a LoopLocal, which opens it in the child on first use; or open it in worker_process_init",
        ("LOOP108",),
    ),
    Rule(
        "HL119",
        "graph-blocks-loop",
        "a coroutine calls a graph's blocking invoke() or stream()",
        "LangGraph's invoke() runs the nodes on the calling thread and its helpers. On a loop's thread it"
        " blocks that loop; a node or an async saver that needs the loop waits for ever, or raises.",
        "await graph.ainvoke(...), or async for ... in graph.astream(...)",
        ("LOOP205", "LOOP201"),
    ),
)

BY_CODE = {rule.code: rule for rule in RULES}
