"""The list of promises, by id, and that each has exactly one test, in the promise's own words."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

PROMISES = {
    "A01": "returns the coroutine's value",
    "A02": "functools.partial of a coroutine function is accepted",
    "A03": "None/0/''/False come back unchanged",
    "A04": "result is the very same object (no copy, no translation)",
    "A05": "object with async __call__ is accepted",
    "A06": "plain sync function: value or TypeError/ValueError at once, never a hang",
    "A07": "a coroutine that RETURNS an exception instance returns it (not raises)",
    "A08": "runs in a real task: current_task, asyncio.timeout, TaskGroup work",
    "A09": "AnyIO code (detection, cancel scopes) works inside",
    "A10": "asyncio subprocesses work inside, also from a worker thread",
    "A11": "asyncio.to_thread works inside",
    "A12": "asyncio is not monkey-patched",
    "A13": "the event loop the user had set in this thread stays set and open",
    "A14": "SIGINT handler and wakeup fd are as before the call",
    "A15": "arguments reach the coroutine as the very same objects",
    "B01": "same exception object reaches the caller",
    "B02": "traceback shows the coroutine's frames AND the caller's frame",
    "B03": "__cause__ is preserved and not replaced by the bridge",
    "B04": "ExceptionGroup from a TaskGroup is delivered intact",
    "B05": "user's own TimeoutError is not mistaken for a bridge timeout",
    "B06": "user's RuntimeError is not swallowed/rewritten; coroutine runs once",
    "B07": "StopIteration inside the coroutine -> RuntimeError, no hang",
    "B08": "CancelledError raised by the coroutine reaches the caller; never returns None",
    "B09": "a coroutine cancelling its own task -> CancelledError, bridge usable",
    "B10": "SystemExit in the coroutine reaches the caller; bridge survives",
    "B11": "KeyboardInterrupt in the coroutine reaches the caller; bridge survives",
    "B12": "a custom BaseException reaches the caller; bridge survives",
    "B13": "failed call leaves no reference cycle (args freed without the GC)",
    "B14": "results and arguments are not retained after the call",
    "B15": "failing and cancelled calls leave no 'never retrieved/awaited' noise",
    "C01": (
        "sync call on a thread whose loop runs: result or prompt RuntimeError, no hang, no coroutine object, "
        "no warnings"
    ),
    "C02": "same, and it really returns the result (Jupyter cell, FastAPI sync helper)",
    "C03": "the host loop is intact afterwards (current_task, timeouts, timers)",
    "C04": "re-entrant call on the bridge's own loop thread: result or prompt error",
    "C05": "sandwich run -> to_thread -> run works",
    "C06": "five-level sandwich works",
    "C07": "same with the system's own to_thread primitive",
    "C08": "40 threadpool callers of one host loop all finish (FastAPI threadpool)",
    "C09": "pool starvation: 40 x (run -> to_thread -> run -> to_thread) finishes or errors, no silent deadlock",
    "C10": "coroutine needs the caller's blocked loop: timeout (or refusal) ends it",
    "C11": "called on a running uvloop loop: result or prompt RuntimeError",
    "C12": "called on a running uvloop loop: returns the result",
    "D01": "two calls from one thread run on the same, still open, loop",
    "D02": "calls from different threads run on the same loop (shared pools)",
    "D03": "TCP connection opened in one call is usable in a later call from another thread",
    "D04": "a background task started in one call makes progress while no call is active",
    "D05": "one asyncio.Lock shared by calls from 8 threads excludes correctly",
    "D06": "abandoned async generator is closed on the loop that iterated it",
    "D07": "per-loop resource registry: one instance per loop, closed on its own loop",
    "D08": "two portals own two distinct loops",
    "D09": "a resource used on a foreign loop is refused with a clear error, not a hang",
    "E01": "20 threads x 0.2 s overlap",
    "E02": "400 short calls from 8 threads: no cross-talk",
    "E03": "100 sequential calls do not grow the number of threads",
    "E04": "60 calls, each from a new thread, do not grow open fds",
    "E05": "a blocked portal does not stall another portal",
    "E06": "16 threads racing on the first call all succeed",
    "F01": "caller's context is visible inside",
    "F02": "changes made inside are visible to the caller afterwards",
    "F03": "... also when the coroutine fails",
    "F04": "two callers with different contexts do not see each other's values",
    "F05": "first caller's context does not leak into later callers through the loop thread",
    "F06": "submit() carries the caller's context in",
    "G01": "timeout raises builtin TimeoutError promptly",
    "G02": "async cleanup has FINISHED when run() raises TimeoutError",
    "G03": "after a timeout the coroutine is not running any more",
    "G04": "generous timeout: value returned, no delay",
    "G05": "timeout=0 means 'now', not 'for ever'",
    "G06": "sub-second timeouts are honoured from a non-main thread",
    "G07": "coroutine that swallows cancellation: run() still returns within a bounded grace",
    "G08": "coroutine that blocks the loop (time.sleep): run() raises TimeoutError on time",
    "G09": "an inner asyncio.timeout handled by the coroutine is not reported as outer timeout",
    "G10": "bridge is usable right after a timeout",
    "G11": "TimeoutError tells where the coroutine was stuck (frame in traceback/notes/cause)",
    "H01": "cancelling a submitted future cancels the coroutine",
    "H02": "a future cancelled before it started never starts / is not left running",
    "H03": "SIGINT while blocked in run(): KeyboardInterrupt within 1.5 s",
    "H04": "SIGINT: the coroutine was cancelled and cleaned up before run() raised",
    "H05": "signal handler raising (Celery soft time limit) while blocked in run(): exception delivered promptly",
    "H06": "signal handler raising: coroutine cancelled and cleaned up before run() raised",
    "H07": (
        "exception injected into the blocked thread (PyThreadState_SetAsyncExc) is seen within 2 s and "
        "cancels the coroutine"
    ),
    "H08": (
        "async caller cancelled while its worker thread is in run(): the coroutine is cancelled (native to_thread)"
    ),
    "H10": "same, when the caller is cancelled through an AnyIO cancel scope",
    "H09": "concurrent.futures.wait/as_completed see a cancelled submitted future as done",
    "I01": "run() once and leave: exit 0 within 3 s, no stderr noise",
    "I02": "background task left running: process still exits, no noise",
    "I03": "background task left running: its async finally runs at exit (drain)",
    "I04": "submitted work pending at exit: bounded exit, its finally runs",
    "I05": "run() from an atexit handler works",
    "I06": "run() from an atexit handler registered BEFORE the bridge started works or raises, no hang",
    "I07": "run() from __del__ during interpreter finalization: no hang",
    "I08": "daemon thread hammering run() while the interpreter exits: no hang, no crash",
    "I09": "a non-daemon thread calling run() after the main thread ended still works",
    "I10": "close() is idempotent; run() afterwards: error or restart, no hang, no un-awaited coroutine",
    "I11": "close() cancels/awaits pending work so that its finally has run",
    "I12": "close() closes suspended async generators on their loop",
    "I13": "bridge held in a module global and never closed: process exits (portal finalizers run late)",
    "J01": "forked child (after the parent used the bridge) can call run()",
    "J02": "forked child exits cleanly through full finalization",
    "J03": "fork while another thread is inside run(): the child can call run()",
    "J04": "after the child used and closed its bridge, the parent's loop still does I/O",
    "J05": "ProcessPoolExecutor(fork) workers can call run() after the parent did",
    "J06": "fork from inside a coroutine on the bridge's loop: child can run(), parent unharmed",
    "K01": "monkey-patched process: run() returns",
    "K02": "monkey-patched: other greenlets progress while one is inside run()",
    "K03": "monkey-patched: 10 greenlets in run() overlap and get the right results",
    "K04": "monkey-patched: timeout is honoured",
    "L01": "works under the uvloop policy",
    "L02": "works in asyncio debug mode without warnings",
    "M01": "async generator is iterated from sync code in order",
    "M02": "early break/close() runs the generator's async finally before close() returns",
    "M03": "exception in the generator reaches the consumer; then it is exhausted",
    "M04": "generator keeps its own context between steps",
    "M05": "asyncio.timeout / cancel scope spanning yields works (same task for every step)",
    "M06": "async context manager: value, order",
    "M07": "async context manager sees the body's exception and may suppress it",
    "M08": "__aenter__ and __aexit__ run in one task (task groups / cancel scopes inside)",
    "M09": "__aenter__ failure propagates, body not entered",
}

_ID = re.compile(r"test_([a-z]\d\d)_")


def _tests_by_id() -> dict[str, list[ast.FunctionDef]]:
    """Return the tests of this directory that carry an id, read from the source: pytest may run only some."""
    found: defaultdict[str, list[ast.FunctionDef]] = defaultdict(list)
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (match := _ID.match(node.name)):
                found[match[1].upper()].append(node)
    return found


def _words(text: str) -> str:
    """Return a sentence without what its place decides: line breaks, the first letter's case, the full stop."""
    text = " ".join(text.split()).removesuffix(".")
    return text[:1].lower() + text[1:]


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_has_one_test_in_its_own_words(promise: str) -> None:
    """Its test carries the id in its name and the promise as its docstring's first paragraph."""
    (test,) = _tests_by_id()[promise]
    first_paragraph = (ast.get_docstring(test) or "").split("\n\n")[0]
    assert _words(first_paragraph) == _words(PROMISES[promise])


def test_no_test_has_an_unknown_id() -> None:
    """An id that is not in the table is a slip of the pen."""
    assert set(_tests_by_id()) == set(PROMISES)
