"""What to do about a fault."""

ADVICE = {
    "call-abandoned": "find what ignores its cancellation: `except BaseException`, or a call that blocks",
    "callback-failed": "handle the error in the callback, or have it raised with on_error='raise'",
    "interpreter-stalled": "find what keeps the interpreter's lock, and run it in a process of its own",
    "loop-blocked": "move what blocks to asyncio.to_thread()",
    "loop-fault": "`homeloop explain` tells what it means",
    "resource-lost": "end the loop with shutdown_asyncgens(), as asyncio.run() does, and let closing end in time",
    "runtime-lost": "see the log for what ended or blocked its loop",
    "task-left": "await what you start before you return, or keep it in an asyncio.TaskGroup",
    "worker-lost": "see its exit code in the log: -9 is often the system's, short of memory",
}
"""What to do about a kind of finding that events tell of."""
