"""The process tier: workers are kept, killable, bounded; whatever becomes of them, the next call works."""

import asyncio
import functools
import os
import signal
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import isolated_work as work
import pytest
import reporting_work as reporting
import seeded_preload
from processes_seen import appears, wait_gone
from waiting import DEADLINE, until

from homeloop import Isolation, IsolationExecutor
from homeloop._events import WorkerEnded, WorkerLost, WorkerStarted
from homeloop.errors import CallTimeoutError, IsolationError, NotTransferableError, WorkerDiedError

PROCESS = Isolation.PROCESS


def test_workers_are_kept(executor: IsolationExecutor, go: Any) -> None:
    """Calls one after the other run in one process, which is not ours."""

    async def main() -> set[int]:
        return {(await executor.run(work.where, isolation=PROCESS))[0] for _ in range(5)}

    (pid,) = go(main)
    assert pid != os.getpid()


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGTERM, "SIGTERM"), (signal.SIGSEGV, "SIGSEGV")]
)
def test_killed_from_outside(executor: IsolationExecutor, tmp_path: Path, number: int, name: str) -> None:
    """The error names the signal; the next call works; nothing is left."""

    async def main() -> int:
        running = asyncio.ensure_future(
            executor.run(work.signal_then_wait, str(tmp_path / "r"), isolation=PROCESS)
        )
        pid = await appears(tmp_path / "r")
        os.kill(pid, number)
        with pytest.raises(WorkerDiedError, match=rf"killed by signal {number:d} \({name}\)") as caught:
            await running
        assert (caught.value.pid, caught.value.exitcode) == (pid, -number)
        assert await executor.run(work.identity, 1, isolation=PROCESS) == 1
        return pid

    wait_gone(asyncio.run(main()))


def test_exit_code_and_last_progress(executor: IsolationExecutor, go: Any, heard: Any) -> None:
    """A worker that leaves by itself: the error names exit code and last progress."""

    async def main() -> None:
        before = executor.statistics().tiers[PROCESS].died
        with pytest.raises(
            WorkerDiedError, match=r"exit code 9; its last progress was \('parsing', 40.0, 'page 3'\)"
        ):
            await executor.run(reporting.report_and_die, isolation=PROCESS, on_progress=print)
        assert await executor.run(work.identity, 1, isolation=PROCESS) == 1
        assert executor.statistics().tiers[PROCESS].died == before + 1

    go(main)
    assert [event.exitcode for event in heard(WorkerLost)] == [9]


@pytest.mark.parametrize("die", [work.fork_a_holder_and_die, work.report_with_a_holder_and_exit])
def test_death_is_noticed_although_a_child_holds_the_wire(tmp_path: Path, die: Any) -> None:
    """A child that the work forked has the worker's wire open: the caller hears of the death all the same."""
    holder = tmp_path / "holder"
    told: list[str] = []

    async def main(executor: IsolationExecutor) -> None:
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(WorkerDiedError) as caught:
                hear = lambda step, *_: told.append(step)  # noqa: E731
                await executor.run(die, str(holder), isolation=PROCESS, on_progress=hear)
            assert await executor.run(work.identity, 1, isolation=PROCESS) == 1
        if die is work.fork_a_holder_and_die:
            assert caught.value.exitcode == -signal.SIGKILL
        else:
            assert (caught.value.exitcode, told) == (7, ["last words"])

    try:
        with IsolationExecutor(name="holder", max_processes=1) as executor:
            asyncio.run(main(executor))
    finally:
        os.kill(int(holder.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("tier", [Isolation.THREAD, PROCESS])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_children_that_go_on(executor: IsolationExecutor, go: Any, tier: Isolation) -> None:
    """A child that the work forks ends with what forked it; nobody hears of it, and the tier goes on."""
    codes = {"returns": 0, "exits": 4, "fails": 1, "awaits": 1}

    async def main() -> None:
        run = functools.partial(executor.run, isolation=tier)
        for how, code in codes.items():
            pid, ended = await run(work.fork_and_go_on, how)
            assert (how, ended) == (how, code)
            _, ended = await run(work.fork_and_go_on_in_a_task, how)
            assert (how, ended) == (how, code or 1)  # the task that awaits it is the parent's
            assert {(await run(work.where))[0] for _ in range(5)} == {pid}

    go(main)


def template_of(worker: int) -> int:
    """Return the process that a worker was forked from."""
    return int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])


def test_signals_for_everybody_leave_the_template_alone(tmp_path: Path) -> None:
    """A terminal, or a service manager, signals all processes of a program: only the parent decides what ends."""
    with IsolationExecutor(name="signalled", max_processes=2) as executor:

        async def main() -> None:
            run = functools.partial(executor.run, isolation=PROCESS)
            running = asyncio.ensure_future(run(work.signal_then_wait, str(tmp_path / "r")))
            worker = await appears(tmp_path / "r")
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(template_of(worker), number)
            other, _ = await run(work.where)
            assert template_of(other) == template_of(worker)
            assert not running.done()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        asyncio.run(main())


def test_a_fork_that_fails_fails_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system refuses another process, that call is told so; those that run go on, and later ones work."""
    preload = ["isolated_unprivileged", "isolated_work"]
    with (
        TemporaryDirectory() as folder,
        IsolationExecutor(name="refused", max_processes=2, preload=preload) as executor,
    ):
        Path(folder).chmod(0o777)
        no_forks, release, ready = (Path(folder) / name for name in ("no-forks", "release", "ready"))
        monkeypatch.setenv("NO_FORKS", str(no_forks))

        async def main() -> None:
            run = functools.partial(executor.run, isolation=PROCESS)
            running = asyncio.ensure_future(run(work.wait_for_file, str(ready), str(release)))
            template = template_of(await appears(ready))
            no_forks.touch()
            with pytest.raises(IsolationError, match="could not be forked.*Resource temporarily unavailable"):
                await run(work.where)
            no_forks.unlink()
            assert template_of((await run(work.where))[0]) == template
            release.touch()
            assert await running == "released"

        asyncio.run(main())


def test_a_scope_outlives_its_worker(executor: IsolationExecutor, go: Any) -> None:
    """When a scope's worker dies, its next run has another one."""

    async def main() -> None:
        async with executor.isolated("long", isolation=PROCESS) as scope:
            first, _ = await scope.run(work.where)
            with pytest.raises(WorkerDiedError):
                await scope.run(work.exit_at_once, 3)
            second, _ = await scope.run(work.where)
            assert first != second
            died = executor.statistics().tiers[PROCESS].died
            os.kill(second, signal.SIGKILL)  # between two runs
            await until(lambda: executor.statistics().tiers[PROCESS].died != died)
            assert (await scope.run(work.where))[0] not in (first, second)

    go(main)


def test_soft_cancel_then_sigterm_then_sigkill(tmp_path: Path, heard: Any) -> None:
    """What ignores its cancellation gets SIGTERM, what blocks that too, SIGKILL; the caller gets the time-out."""
    budgets = {"grace": 0.4, "terminate_grace": 0.3, "block_threshold": 0.1}  # blocked before it is given up
    with IsolationExecutor(name="ladder", max_processes=1, **budgets) as executor:

        async def main() -> list[int]:
            pids = []
            for fn in (work.ignore_cancellation, work.ignore_signals):
                pids.append((await executor.run(work.where, isolation=PROCESS))[0])
                with pytest.raises(CallTimeoutError, match="its process was killed") as caught:
                    await executor.run(fn, 60.0, isolation=PROCESS, timeout=0.1)
                assert caught.value.killed
                assert isinstance(caught.value.__cause__, WorkerDiedError)
            assert "could not be cancelled, the loop is blocked at" in str(caught.value)
            assert any("ignore_signals" in place for place in caught.value.blocked_at)
            with pytest.raises(asyncio.CancelledError):
                blocked = asyncio.ensure_future(
                    executor.run(work.signal_then_block, str(tmp_path / "r"), 60.0, isolation=PROCESS)
                )
                pids.append(await appears(tmp_path / "r"))
                blocked.cancel()
                await blocked
            assert await executor.run(work.ignore_cancellation, 0.2, isolation=PROCESS) == "done after all"
            return pids

        pids = asyncio.run(main())
        wait_gone(*pids)
    assert [event.exitcode for event in heard(WorkerLost)] == [-signal.SIGKILL, -signal.SIGKILL, -signal.SIGTERM]


def test_what_finishes_in_its_grace_counts(go: Any) -> None:
    """A result that comes after the cancellation, within the grace, is the result."""
    with IsolationExecutor(name="grace", grace=10.0, max_processes=1) as executor:
        executor.warm(PROCESS)
        run = functools.partial(executor.run, isolation=PROCESS, timeout=0.1)
        assert go(run, work.ignore_cancellation, 0.3) == "done after all"


def test_recycling(heard: Any) -> None:
    """After so many runs a worker is replaced."""
    with IsolationExecutor(name="recycle", max_processes=1, max_runs=2) as executor:

        async def main() -> list[int]:
            return [(await executor.run(work.where, isolation=PROCESS))[0] for _ in range(5)]

        pids = asyncio.run(main())
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    wait_gone(*pids)
    assert sorted(event.runs for event in heard(WorkerEnded)) == [1, 2, 2]
    assert heard(WorkerLost) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound what a process allocates")
def test_memory_limit(go: Any) -> None:
    """Beyond the limit work gets MemoryError, and its worker is replaced; also when it comes near."""
    limit = 400_000_000
    with IsolationExecutor(name="memory", max_processes=1, max_memory_bytes=limit) as executor:

        async def main() -> None:
            run = functools.partial(executor.run, isolation=PROCESS)
            first, _ = await run(work.where)
            assert await run(work.allocate, 10_000_000) == 10_000_000
            assert (await run(work.where))[0] == first
            with pytest.raises(MemoryError) as refused:
                await run(work.allocate, 2 * limit)
            assert f"max_memory_bytes lets a process allocate {limit} bytes" in "".join(refused.value.__notes__)
            second, _ = await run(work.where)
            assert second != first
            await run(work.keep, limit - 70_000_000)
            assert (await run(work.where))[0] != second

        go(main)
        assert executor.statistics().tiers[PROCESS].ended == 2


def test_values_that_cannot_cross(executor: IsolationExecutor, go: Any, monkeypatch: Any) -> None:
    """Told what, why and what to do; before the call for arguments, after it for the result."""

    async def main() -> None:
        run = functools.partial(executor.run, isolation=PROCESS)
        with pytest.raises(NotTransferableError, match="isolated_work.identity"):
            await run(work.identity, threading.Lock())
        with pytest.raises(NotTransferableError, match="the result of isolated_work.return_lock"):
            await run(work.return_lock)
        with pytest.raises(NotTransferableError, match="a report"):
            await run(reporting.report_lock, on_progress=print)
        number = 3

        async def local(factor: int) -> int:
            return factor * number

        assert await run(local, 2) == 6  # by value, with cloudpickle
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "cloudpickle", None)
            with pytest.raises(NotTransferableError, match=r"homeloop\[process\]"):
                await run(local, 2)
        assert await run(work.identity, 1) == 1

    go(main)


def test_large_results_are_rebuilt_aside(executor: IsolationExecutor, go: Any) -> None:
    """The caller's loop goes on while a large result is rebuilt; a small one is rebuilt on the spot."""

    async def main() -> None:
        small, large = [await executor.run(work.make_rebuilt, n, isolation=PROCESS) for n in (10, 2_000_000)]
        assert small.thread == threading.get_ident() != large.thread
        assert (len(small.load), len(large.load)) == (10, 2_000_000)

    go(main)


def test_functions_that_are_not_over_there(executor: IsolationExecutor, go: Any) -> None:
    """A module that the worker cannot import is named."""
    import types

    module = types.ModuleType("only_here")
    sys.modules["only_here"] = module
    exec("async def work(): return 1", vars(module))
    try:
        with pytest.raises(NotTransferableError, match=r"only_here.work\(\).*No module named 'only_here'"):
            go(functools.partial(executor.run, isolation=PROCESS), module.work)
    finally:
        del sys.modules["only_here"]


def test_no_descriptors_are_inherited(executor: IsolationExecutor, go: Any) -> None:
    """A worker has its wire and its loop's own, none of the parent's or of another worker's."""
    go(lambda: executor.run(work.where, isolation=PROCESS))  # what is opened once in a process is open now
    read, write = os.pipe()
    os.set_inheritable(read, True)
    try:
        with IsolationExecutor(name="descriptors", max_processes=2) as own:

            async def main() -> list[list[str]]:
                run = functools.partial(own.run, isolation=PROCESS)
                await asyncio.gather(run(work.clean_up_nothing, 0.1), run(work.clean_up_nothing, 0.1))
                return list(await asyncio.gather(*(run(work.slow_descriptors, 0.1) for _ in range(2))))

            before = len(os.listdir("/proc/self/fd"))
            for found in go(main):
                kinds = sorted(name.partition(":")[0] for name in found if not name.startswith("/"))
                assert kinds.count("pipe") == 0, found
                assert kinds.count("socket") <= 3, found  # the wire, and the loop's pair
        after = len(os.listdir("/proc/self/fd"))
        assert after <= before, "the executor has left descriptors"
    finally:
        os.close(read)
        os.close(write)


def test_preloading_and_initializer(tmp_path: Path) -> None:
    """Modules are imported before the fork, the initializer is called in each worker."""
    with IsolationExecutor(
        name="preload", preload=["isolated_preload"], initializer=work.initialise, max_processes=1, max_runs=1
    ) as executor:

        async def main() -> list[tuple[int, int, bool]]:
            return [await executor.run(work.preloaded, isolation=PROCESS) for _ in range(2)]

        first, second = asyncio.run(main())
    assert first[0] != second[0]  # two workers
    assert first[1] == second[1] not in (first[0], second[0])  # that share an import
    assert first[2] is second[2] is True


def test_random_numbers() -> None:
    """Workers of one template draw different numbers from `random`, although it was seeded; its own are copies."""
    with IsolationExecutor(name="random", preload=["seeded_preload"], max_processes=1, max_runs=1) as executor:

        async def main() -> list[tuple[float, float]]:
            return [await executor.run(seeded_preload.draw, isolation=PROCESS) for _ in range(3)]

        drawn = asyncio.run(main())
    assert len({shared for shared, _ in drawn}) == 3
    assert len({own for _, own in drawn}) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list what a process has open")
def test_what_a_worker_starts_does_not_inherit_its_connection(go: Any) -> None:
    """A program that outlives its worker would keep the caller waiting for the worker's answer."""
    with IsolationExecutor(name="inherit", max_processes=1) as executor:

        async def main() -> list[str]:
            return await executor.run(work.descriptors_of_a_program, isolation=PROCESS)

        opened = asyncio.run(main())
    assert opened
    assert [each for each in opened if each.startswith("socket:")] == []


def test_closing(go: Any, tmp_path: Path) -> None:
    """close() ends what runs, refuses what comes, and leaves nothing."""
    executor = IsolationExecutor(name="closing", grace=1.0)

    async def main() -> int:
        running = asyncio.ensure_future(
            executor.run(work.signal_then_wait, str(tmp_path / "r"), isolation=PROCESS)
        )
        pid = await appears(tmp_path / "r")
        await asyncio.to_thread(executor.close)
        with pytest.raises(RuntimeError, match="the executor was closed, which cancelled the call"):
            await running
        with pytest.raises(RuntimeError, match="is closed"):
            await executor.run(work.identity, 1, isolation=PROCESS)
        return int(pid)

    wait_gone(go(main))
    executor.close()
    (tmp_path / "r").unlink()


def test_an_exit_in_a_task(executor: IsolationExecutor) -> None:
    """A task of the work that leaves the program ends the worker: said so, and it gets no further run."""

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(WorkerDiedError, match="ended with exit code 3"):
                await executor.run(work.exit_in_a_task, 3, isolation=PROCESS, timeout=DEADLINE)
            assert await executor.run(work.identity, 1, isolation=PROCESS, timeout=DEADLINE) == 1

    asyncio.run(main())


def test_a_worker_that_starts_slowly_serves_the_next_call() -> None:
    """A time-out while a worker starts: told so at once; the worker is there for the next call."""
    with IsolationExecutor(name="slowly", max_processes=1) as executor:

        async def main() -> None:
            with pytest.raises(CallTimeoutError, match="its process was still starting"):
                await executor.run(work.where, isolation=PROCESS, timeout=0.001)
            assert await executor.run(work.identity, 1, isolation=PROCESS, timeout=DEADLINE) == 1

        asyncio.run(main())


def test_late_starts_count(heard: Any) -> None:
    """Workers that come up after their call's time-out take places, of which there are ``max_processes``."""
    with IsolationExecutor(name="late", max_processes=1) as executor:

        async def main() -> set[int]:
            run = functools.partial(executor.run, isolation=PROCESS)
            for _ in range(5):
                with pytest.raises(CallTimeoutError):
                    await run(work.where, timeout=0.001)
            return {(await run(work.where))[0] for _ in range(5)}

        (pid,) = asyncio.run(main())
        assert [event.pid for event in heard(WorkerStarted)] == [pid]
