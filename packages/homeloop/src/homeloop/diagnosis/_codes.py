"""The codes of findings: what each means, why the message misleads, what to change."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What went wrong. The value is its name in logs and tables."""

    REUSE_ACROSS_RUNS = "reuse-across-runs"
    TWO_LIVE_LOOPS = "two-live-loops"
    PRIMITIVE_REBIND = "primitive-rebind"
    LOOP_CAPTURED = "loop-captured"
    UNSAFE_CROSS_THREAD = "unsafe-cross-thread"
    DEAD_BACKGROUND_WORKER = "dead-background-worker"
    TEST_LOOP_MISMATCH = "test-loop-mismatch"
    FORK_INHERITED = "fork-inherited"
    NESTED_RUN = "nested-run"
    NO_CURRENT_LOOP = "no-current-loop"
    NO_CURRENT_TASK = "no-current-task"
    LOOP_STOPPED_EARLY = "loop-stopped-early"
    SYNC_BRIDGE_DEADLOCK = "sync-bridge-deadlock"
    GREENLET_LOOP_COLLISION = "greenlet-loop-collision"
    NEST_UNPATCHABLE = "nest-unpatchable"
    LOOP_TYPE_MISMATCH = "loop-type-mismatch"
    GLOBAL_SINGLE_POLLER = "global-single-poller"
    TASK_SPILLOVER = "task-spillover"
    LATE_CLEANUP = "late-cleanup"
    ASYNCGEN_CLEANUP = "asyncgen-cleanup"
    USE_AFTER_CONTEXT_EXIT = "use-after-context-exit"


@dataclass(frozen=True, slots=True)
class Code:
    """
    A code and its page.

    Attributes:
        code: For instance ``LOOP101``.
        title: One line.
        meaning: What happened, for somebody who has never read about event loops.
        misleads: Why the message that came with it says something else.
        remedy: What to change, most helpful first.
        crosses_loops: Whether two loops, or a loop and a thread or process that is not its own, are involved.
    """

    code: str
    kind: Kind
    title: str
    meaning: str
    misleads: str
    remedy: tuple[str, ...]
    crosses_loops: bool = True


_KEEP_LOOP = "keep one loop per process: replace asyncio.run(fn(...)) by homeloop.run(fn, ...)"
_PER_LOOP = "or open one per loop: LoopLocal(factory) opens it on first use and closes it on that same loop"

CODES: tuple[Code, ...] = (
    Code(
        "LOOP101",
        Kind.REUSE_ACROSS_RUNS,
        "an object of a finished loop is used by the next one",
        "A client, pool or connection was opened on one event loop and kept (in a module, a cache, an "
        "attribute). That loop ended - every asyncio.run() ends its own - and the object was then used on "
        "another loop. Its sockets, timers and futures still belong to the first.",
        "the driver notices only when a socket or future of the old loop is touched, so every second call "
        "may work; what it raises while it cleans up hides the first error",
        (_KEEP_LOOP, _PER_LOOP, "or open and close it inside the same asyncio.run()"),
    ),
    Code(
        "LOOP102",
        Kind.TWO_LIVE_LOOPS,
        "an object of one running loop is used on another",
        "Two event loops run at the same time, on two threads, and share an object that belongs to one of "
        "them. What happens depends on timing: an error, a hang, and with some drivers a crash.",
        "the driver sees a strange state (another operation is in progress, a time-out), not the second loop",
        (
            "bring the call to the object's loop: await homeloop.arun(fn, ...); from a thread: homeloop.run()",
            _PER_LOOP,
        ),
    ),
    Code(
        "LOOP103",
        Kind.PRIMITIVE_REBIND,
        "a lock, queue, event or semaphore of one loop is waited for on another",
        "An asyncio primitive belongs to the first loop on which somebody had to wait for it. It was then "
        "waited for on another loop.",
        "without contention nothing is checked: the same code works until there is load",
        (
            "make the primitive where the loop runs, not at module level: LoopLocal(asyncio.Lock)",
            _KEEP_LOOP,
            "to exclude across loops use threading.Lock, held for no await",
        ),
    ),
    Code(
        "LOOP104",
        Kind.LOOP_CAPTURED,
        "an object kept the loop that was current when it was made",
        "Something remembered an event loop when it was constructed (at import, in __init__, when a factory "
        "was called) and now schedules its work there. Meanwhile that loop was closed, or never was the one that "
        "runs.",
        "the error names the operation, not the constructor that took the loop",
        (
            "construct it inside a coroutine on the loop that will use it: LoopLocal(factory)",
            "ask asyncio.get_running_loop() when the work is started, not in the constructor",
            _KEEP_LOOP,
        ),
    ),
    Code(
        "LOOP105",
        Kind.UNSAFE_CROSS_THREAD,
        "a loop or one of its objects is touched from another thread",
        "put_nowait, set, call_soon, create_task and the like are for the loop's own thread. From another "
        "one the loop is not woken: the consumer sleeps on until something else happens.",
        "outside debug mode there is no message at all, only a stall",
        (
            "loop.call_soon_threadsafe(queue.put_nowait, item)",
            "or homeloop.bind_callback(callback): runs on its own loop wherever it is called from",
        ),
    ),
    Code(
        "LOOP106",
        Kind.DEAD_BACKGROUND_WORKER,
        "a pool outlived the loop that its background tasks ran on",
        "The pool opened its maintenance tasks on a loop that has ended. Connections that were open keep "
        "working; those that break are never replaced.",
        "it says that no connection was free in time, as if the pool were too small or the server too slow",
        (_KEEP_LOOP, _PER_LOOP),
    ),
    Code(
        "LOOP107",
        Kind.TEST_LOOP_MISMATCH,
        "a test or its client runs on another loop than the fixture's object",
        "A fixture or the application's start opened an object on one loop; the test, or the test client's "
        "portal, runs on another one.",
        "production code is blamed, but only the test has two loops",
        (
            "give fixture and test the same loop scope (pytest-asyncio: loop_scope; anyio: one backend fixture)",
            "with TestClient: open resources in the application's lifespan and use `with TestClient(app)`, "
            "or test with httpx.ASGITransport on the test's own loop",
        ),
    ),
    Code(
        "LOOP108",
        Kind.FORK_INHERITED,
        "a forked child uses a loop or a connection of its parent",
        "The loop, or the object on it, was made before os.fork(). Parent and children now share its "
        "sockets and its selector, and read each other's answers.",
        "it looks like a protocol error or a lost connection, and like a different one in every run",
        (
            "open it after the fork: homeloop.run() and LoopLocal make a fresh one in every child",
            "Celery: open in worker_process_init (warm_up of homeloop.adapters.celery), not at import",
            "multiprocessing: use the spawn or forkserver method",
        ),
    ),
    Code(
        "LOOP201",
        Kind.NESTED_RUN,
        "a loop is started where one is already running",
        "asyncio.run(), run_until_complete() or async_to_sync() was called by code that already runs on an "
        "event loop: a sync helper, a tool, a model's predict() called from a coroutine.",
        "the message names the inner call; the cause is the async caller further out",
        (
            "await the coroutine all the way up",
            "if the function between must stay sync: await asyncio.to_thread(fn), in it homeloop.run()",
            "do not start a loop in a thread for objects of this one: that is LOOP102",
        ),
        crosses_loops=True,
    ),
    Code(
        "LOOP202",
        Kind.NO_CURRENT_LOOP,
        "there is no event loop here",
        "asyncio.get_event_loop(), or an object that needs a running loop, was used in a thread without a "
        "loop, at import, or after asyncio.run() had ended its own.",
        "it works on the main thread before the first asyncio.run() on some versions, so it passes tests",
        (
            "run async work from a thread with homeloop.run(fn, ...)",
            "make clients inside a coroutine, or LoopLocal(factory) at module level: it opens on first use",
        ),
    ),
    Code(
        "LOOP203",
        Kind.NO_CURRENT_TASK,
        "a timer is used outside a task",
        "asyncio.timeout() and its like cancel the current task. The code runs in a callback, or a foreign "
        "runner drives the coroutine by hand, so there is no task.",
        "the time-out is blamed; any code that asks for the current task would fail here",
        ("start the coroutine as a task: asyncio.create_task(fn()), homeloop.run(fn) or homeloop.submit(fn)",),
        crosses_loops=False,
    ),
    Code(
        "LOOP204",
        Kind.LOOP_STOPPED_EARLY,
        "the loop was stopped while somebody waited for a result",
        "loop.stop() was called, by a signal handler or a shutdown hook, while run_until_complete() waited.",
        "the future is named, but nothing is wrong with it",
        (
            "cancel the main task instead of stopping its loop; asyncio.run() does so on Ctrl-C",
            "with homeloop: runtime.close(), which cancels, cleans up and then stops",
        ),
        crosses_loops=False,
    ),
    Code(
        "LOOP205",
        Kind.SYNC_BRIDGE_DEADLOCK,
        "a loop's own thread waits for that loop",
        "Sync code on the loop's thread asked the loop for a result and blocks until it comes. The loop "
        "cannot run meanwhile, so it never comes.",
        "mostly there is no message, only a hang; libraries that notice call it an invalid state",
        (
            "await instead: the caller is on the loop already",
            "or move the sync function off the loop: await asyncio.to_thread(fn)",
            "graphs: use ainvoke(), or run invoke() in a thread",
        ),
    ),
    Code(
        "LOOP206",
        Kind.GREENLET_LOOP_COLLISION,
        "greenlets of one thread share the mark of the running loop",
        "gevent or eventlet is active. asyncio keeps the running loop per OS thread; every greenlet of the "
        "thread sees the loop that another greenlet runs.",
        "it says that run() was called inside a running loop, but nothing is nested",
        ("use homeloop.run(fn, ...): it works under gevent and eventlet, and greenlets overlap",),
    ),
    Code(
        "LOOP207",
        Kind.NEST_UNPATCHABLE,
        "nest_asyncio cannot nest this: the loop is of another kind, or waits for what is below it",
        "nest_asyncio replaces methods of asyncio's own loop, so that it runs within itself; uvloop's are fixed. "
        "What a nested run waits for, and the coroutine below it holds, never comes: that one goes on afterwards.",
        "the loop's type is blamed, or nothing is said at all; the need for nesting is the problem",
        ("drop nest_asyncio: await, or call homeloop.run() from a thread that is not the loop's",),
        crosses_loops=False,
    ),
    Code(
        "LOOP208",
        Kind.LOOP_TYPE_MISMATCH,
        "the driver does not work on this kind of loop",
        "Some drivers need a selector loop and refuse Windows' ProactorEventLoop.",
        "it appears only on Windows",
        ("LoopRuntime(loop_factory=asyncio.SelectorEventLoop), or the same for asyncio.Runner",),
        crosses_loops=False,
    ),
    Code(
        "LOOP209",
        Kind.GLOBAL_SINGLE_POLLER,
        "grpc.aio wakes every loop of the process for one event",
        "grpc.aio before 1.80 has one completion queue per process; each loop that used it is woken, and all "
        "but one find nothing.",
        "BlockingIOError looks like a broken channel; it is noise",
        ("upgrade grpcio to 1.80 or newer", "use grpc.aio on one loop only: homeloop.run(fn, ...)"),
    ),
    Code(
        "LOOP301",
        Kind.TASK_SPILLOVER,
        "tasks were still there when their loop ended",
        "A task was started and nobody awaited it. Its loop ended: asyncio.run() cancels such tasks "
        "silently, loop.close() just drops them.",
        "nothing is raised where the task was made; its work is lost",
        (
            "await it, or start it in an asyncio.TaskGroup",
            "background work that may outlive a call: homeloop.submit(fn, ...), drained at exit",
        ),
        crosses_loops=False,
    ),
    Code(
        "LOOP302",
        Kind.LATE_CLEANUP,
        "something is closed after its loop ended, or on another one",
        "aclose(), dispose(), __del__ or an exit hook ran when the object's loop was gone, or on a new loop "
        "made for the purpose. The close cannot reach the sockets of the first.",
        "it is printed as ignored, or logged at exit, far from the code that forgot to close",
        (
            "close it on its own loop, before that ends: async with, or a finally in the same asyncio.run()",
            "LoopLocal closes on the loop that opened it, whoever owns the loop",
        ),
    ),
    Code(
        "LOOP303",
        Kind.ASYNCGEN_CLEANUP,
        "an async generator or cancel scope ended in another task, or never",
        "An async generator was left half consumed, or a context manager was entered in one task and left "
        "in another. Its finally block ran elsewhere, or not at all.",
        "the cancel scope is named, not the generator that was dropped",
        (
            "close generators where they are iterated: async with contextlib.aclosing(gen)",
            "enter and leave in one task; homeloop.enter() and iterate() do so from sync code",
        ),
        crosses_loops=False,
    ),
    Code(
        "LOOP304",
        Kind.USE_AFTER_CONTEXT_EXIT,
        "something is used after its `async with` ended",
        "A connection, session or saver was kept beyond the block, or the call, that closed it.",
        "it looks as if the server had closed the connection",
        (
            "keep the block open as long as the object is used: homeloop.enter(manager), or LoopLocal(factory)",
            "graphs: compile with a saver that lives as long as the process",
        ),
        crosses_loops=False,
    ),
)

BY_KIND = {code.kind: code for code in CODES}
BY_CODE = {code.code: code for code in CODES}
