"""The process tier inside programs of every kind: scripts, servers, Celery's workers, forked and killed ones."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import isolated_work as work
import pytest
from processes_seen import appears, wait_gone
from redis import Redis
from waiting import DEADLINE

APPS = work.__file__.rpartition("/")[0]


def run_source(source: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run source under ``python -c`` within the deadline."""
    return subprocess.run(
        [sys.executable, *arguments, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_forked_parents() -> None:
    """A forked child makes workers of its own, and leaves the parent's alone; both end cleanly."""
    source = f"""
    import asyncio, os, sys
    sys.path.insert(0, {APPS!r})
    import isolated_work as work, homeloop
    from homeloop import Isolation

    def call():
        return homeloop.run_isolated_sync(work.where, isolation=Isolation.PROCESS)[0]

    first = call()
    child = os.fork()
    if child == 0:
        other = call()
        with open(f"/proc/{{other}}/stat") as file:
            template = int(file.read().rpartition(")")[2].split()[1])
        with open(f"/proc/{{template}}/stat") as file:
            parent = int(file.read().rpartition(")")[2].split()[1])
        homeloop.default_executor().close()
        sys.exit(0 if other != first and parent == os.getpid() else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, call() == first)
    """
    ended = run_source(source)
    assert ended.stdout.split() == ["0", "True"], ended.stderr
    assert ended.returncode == 0


@pytest.mark.parametrize("blocked", [False, True])
def test_no_orphan_of_a_killed_parent(tmp_path: Path, blocked: bool) -> None:
    """After kill -9 of the parent, template and worker are gone, also one that blocks."""
    call = "work.signal_then_block, sys.argv[1], 600.0" if blocked else "work.signal_then_wait, sys.argv[1]"
    source = f"""
    import sys
    sys.path.insert(0, {APPS!r})
    import isolated_work as work, homeloop
    homeloop.run_isolated_sync({call}, isolation=homeloop.Isolation.PROCESS)
    """
    ready = tmp_path / "ready"
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(source), str(ready)])
    try:
        worker = asyncio.run(appears(ready))
        template = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    finally:
        parent.kill()
        parent.wait(DEADLINE)
    wait_gone(worker, template)


def test_main_programs(tmp_path: Path) -> None:
    """A script's own functions and classes cross by name; its guard keeps it from running again."""
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import contextvars, os, homeloop
            from homeloop import Isolation

            name = contextvars.ContextVar("name")

            class Answer:
                def __init__(self, pid): self.pid, self.name = pid, name.get()

            async def ask(): return Answer(os.getpid())

            if __name__ == "__main__":
                name.set("x")
                answer = homeloop.run_isolated_sync(ask, isolation=Isolation.PROCESS, carry=[name])
                print(type(answer) is Answer, answer.pid != os.getpid(), answer.name)
            """
        )
    )
    for command in ([str(script)], ["-m", "program"]):
        ended = subprocess.run(
            [sys.executable, "-X", "dev", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert ended.stdout.split() == ["True", "True", "x"], ended.stderr


def test_users_of_main_programs(tmp_path: Path) -> None:
    """A user's claims may be of the script's own classes; what cannot be rebuilt is an error, not a hang."""
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import homeloop
            from homeloop import Isolation

            class Role:
                def __init__(self, name): self.name = name
                def __reduce__(self): return rebuild, (self.name,)

            def rebuild(name):
                if name == "broken":
                    raise ValueError("no such role")
                return Role(name)

            async def ask(): return homeloop.current_user().claims["role"].name

            if __name__ == "__main__":
                for name in ("admin", "broken", "editor"):
                    with homeloop.as_user(homeloop.User("u1", {"role": Role(name)})):
                        try:
                            print(homeloop.run_isolated_sync(ask, isolation=Isolation.PROCESS, timeout=20))
                        except Exception as error:
                            print(type(error).__name__)
            """
        )
    )
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert ended.stdout.split() == ["admin", "NotTransferableError", "editor"], ended.stderr


def test_what_is_under_the_guard(tmp_path: Path) -> None:
    """A worker does not see what a script defines under its guard: AUTO goes to a thread, PROCESS says why."""
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import asyncio, os, threading, homeloop
            from homeloop import Isolation

            executor = homeloop.IsolationExecutor()

            async def above(): return os.getpid()

            if __name__ == "__main__":
                async def leak():
                    asyncio.create_task(asyncio.sleep(600))
                    return os.getpid(), threading.get_ident()

                for _ in range(4):
                    print(executor.run_sync(leak)[0] == os.getpid())
                print(executor.statistics().kinds["__main__.leak()"].pinned)

                async def in_a_scope():
                    async with executor.isolated("s", kind="mixed") as scope:
                        await asyncio.gather(scope.run(leak), scope.run(leak))
                    async with executor.isolated("s", kind="mixed") as scope:
                        await scope.run(leak)
                    async with executor.isolated("s", kind="mixed") as scope:
                        other = await scope.run(above)
                        first, second = await asyncio.gather(scope.run(leak), scope.run(leak))
                        print(other != os.getpid(), first[1] == second[1], scope.tier.value)
                asyncio.run(in_a_scope())
                print(executor.statistics().tiers[Isolation.PROCESS].lent)
                try:
                    executor.run_sync(leak, isolation=Isolation.PROCESS)
                except TypeError as error:
                    print(error)
            """
        )
    )
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    *lines, told = ended.stdout.splitlines()
    assert lines == ["True"] * 5 + ["True True thread", "0"], ended.stderr
    assert told.startswith("leak cannot cross to another process")
    assert 'define it above the guard `if __name__ == "__main__":`' in told


@pytest.mark.parametrize("tier", ["none", "context", "thread", "process"])
def test_streams_left_before_the_end_of_the_program(tier: str) -> None:
    """A ``break``, then the end of the loop: nobody has done anything wrong, and nothing is said."""
    ended = run_source(
        f"""
        import asyncio, logging, sys
        sys.path.insert(0, {APPS!r})
        import isolated_work as work, homeloop
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # of -X dev's: how slow a step was says the machine

        async def main():
            options = dict(isolation=homeloop.Isolation({tier!r}))
            async for number, _ in homeloop.stream_isolated(work.count_up, 9, **options):
                if number == 2:
                    break

        asyncio.run(main())
        print("left")
        """,
        *("-X", "dev"),
    )
    assert (ended.stdout, ended.stderr) == ("left\n", "")


def test_main_without_a_guard(tmp_path: Path) -> None:
    """A program that would start itself again in its worker is told so, instead of forking for ever."""
    script = tmp_path / "program.py"
    script.write_text(
        "import homeloop\nasync def work(): return 1\n"
        "print(homeloop.run_isolated_sync(work, isolation=homeloop.Isolation.PROCESS))\n"
    )
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert ended.returncode == 1
    assert 'put what the program does under if __name__ == "__main__":' in ended.stderr


@pytest.mark.parametrize("cloudpickle", [True, False])
def test_under_python_c(cloudpickle: bool) -> None:
    """``python -c`` and notebooks have functions that no process can import: by value, or a clear refusal."""
    hide = "" if cloudpickle else "sys.modules['cloudpickle'] = None"
    ended = run_source(
        f"""
        import multiprocessing  # calls the main module by a second name
        import os, sys, homeloop
        {hide}
        class Answer:
            def __init__(self, pid): self.pid = pid
        async def ask(): return Answer(os.getpid())
        answer = homeloop.run_isolated_sync(ask, isolation=homeloop.Isolation.PROCESS)
        print(type(answer) is Answer, answer.pid != os.getpid())
        """
    )
    if cloudpickle:
        assert ended.stdout.split() == ["True", "True"], ended.stderr
    else:
        assert "homeloop[process]" in ended.stderr


def test_what_lies_in_the_current_directory_is_not_run(tmp_path: Path) -> None:
    """A worker imports what its parent would; and its parent's path may have things on it that Python skips."""
    (tmp_path / "json.py").write_text("print('from here')")
    program = tmp_path / "program" / "main.py"
    program.parent.mkdir()
    program.write_text(
        textwrap.dedent(
            """
            import pathlib, sys, homeloop
            sys.path.append(pathlib.Path("nowhere"))
            async def ask(): return "answer"
            if __name__ == "__main__":
                print(homeloop.run_isolated_sync(ask, isolation=homeloop.Isolation.PROCESS))
            """
        )
    )
    ended = subprocess.run(
        [sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert (ended.stdout, ended.returncode) == ("answer\n", 0), ended.stderr


def test_ctrl_c(tmp_path: Path) -> None:
    """A terminal sends SIGINT to everybody: only the parent acts, its worker cleans up, nothing is left."""
    source = f"""
    import sys
    sys.path.insert(0, {APPS!r})
    import isolated_work as work, homeloop
    try:
        homeloop.run_isolated_sync(work.ready_then_clean_up, *sys.argv[1:], isolation=homeloop.Isolation.PROCESS)
    except KeyboardInterrupt:
        print("interrupted")
    """
    ready, steps = tmp_path / "ready", tmp_path / "steps"
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), str(ready), str(steps)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        worker = asyncio.run(appears(ready))
        os.killpg(parent.pid, signal.SIGINT)
        out, err = parent.communicate(timeout=DEADLINE)
    finally:
        parent.kill()
        parent.wait(DEADLINE)
    assert out == "interrupted\n", err
    assert steps.read_text().split() == ["first", "second"]
    assert err == ""
    wait_gone(worker)


@pytest.fixture(params=["prefork", "threads"])
def celery_pool(request: pytest.FixtureRequest) -> str:
    """Pools whose tasks may start processes: prefork's are daemons, which multiprocessing refuses."""
    return str(request.param)


def beside_a_worker(
    worker: list[str], client: list[str], redis_url: str, queue: str, environment: dict[str, str], folder: Path
) -> "tuple[subprocess.CompletedProcess[str], int]":
    """
    Run a Python program beside a Celery worker on a queue, both in a folder, where the worker writes its log.

    Returns:
        How the program ended, and the worker's exit code.
    """
    options = ("-Q", queue, "--loglevel", "warning", "--without-gossip")
    with (folder / "log").open("w") as log:
        serving = subprocess.Popen(
            [*worker, *options], env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            ended = subprocess.run(
                [sys.executable, *client],
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
            )
        finally:
            serving.terminate()
            serving.wait(DEADLINE)
            with Redis.from_url(redis_url) as server:
                for key in server.scan_iter(f"*{queue}*"):
                    server.delete(key)
    return ended, serving.returncode


@pytest.mark.needs("redis")
def test_inside_celery(celery_pool: str, redis_url: str, tmp_path: Path) -> None:
    """Tasks of real Celery workers use the process tier; the workers leave nothing behind."""
    queue = f"isolation-{os.getpid()}-{celery_pool}"
    environment = {**os.environ, "APP_REDIS": redis_url, "APP_QUEUE": queue, "PYTHONPATH": APPS}
    worker = [
        *(sys.executable, "-m", "celery", "-A", "isolated_tasks", "worker"),
        *("--pool", celery_pool, "-c", "2"),
    ]
    client, ended = beside_a_worker(worker, ["-m", "isolated_tasks"], redis_url, queue, environment, tmp_path)
    assert client.returncode == 0, client.stderr + (tmp_path / "log").read_text()
    pids = [int(pid) for pid in client.stdout.split()]
    assert len(pids) == 8
    wait_gone(*pids)
    assert ended == 0


def test_modules_that_were_found_in_passing(tmp_path: Path) -> None:
    """What was loaded from a folder that is not on the path any more is found there by workers, too."""
    (tmp_path / "passing.py").write_text(
        "import os, sys\nasync def where(number):\n    import beside\n    return os.getpid(), number\n"
        "def prepare(): sys.prepared = True\n"
        "async def is_prepared(): return sys.prepared\n"
    )
    (tmp_path / "beside.py").write_text("")
    ended = run_source(
        f"""
        import os, sys
        sys.path.insert(0, {str(tmp_path)!r})
        import passing
        del sys.path[0]
        import homeloop
        from homeloop import Isolation
        print(homeloop.run_isolated_sync(passing.where, 7, isolation=Isolation.PROCESS)[1])
        with homeloop.IsolationExecutor(initializer=passing.prepare, preload=["passing"]) as executor:
            print(executor.run_sync(passing.is_prepared, isolation=Isolation.PROCESS))
        """
    )
    assert ended.stdout.split() == ["7", "True"], ended.stderr


@pytest.mark.needs("redis")
def test_inside_celery_without_pythonpath(redis_url: str, tmp_path: Path) -> None:
    """Celery has the current folder on the path only while it loads the app: workers find the app there."""
    queue = f"isolation-{os.getpid()}-here"
    (tmp_path / "capp.py").write_text(
        textwrap.dedent(
            f"""
            import os, homeloop
            from celery import Celery
            from homeloop import Isolation

            app = Celery("capp", broker={redis_url!r}, backend={redis_url!r})
            app.conf.update(task_default_queue={queue!r}, result_expires=60)

            async def where(): return os.getpid()

            @app.task
            def elsewhere():
                return os.getpid() != homeloop.run_isolated_sync(where, isolation=Isolation.PROCESS)

            if __name__ == "__main__":
                from capp import elsewhere
                result = elsewhere.delay()
                print(result.get(timeout=50))
                result.forget()
            """
        )
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    celery = Path(sys.executable).parent / "celery"
    worker = [*(str(celery), "-A", "capp", "worker"), *("--pool", "prefork", "-c", "1")]
    client, _ = beside_a_worker(worker, ["capp.py"], redis_url, queue, environment, tmp_path)
    assert client.stdout == "True\n", client.stderr + (tmp_path / "log").read_text()


def test_under_uvicorn(tmp_path: Path) -> None:
    """An endpoint of a real server uses the process tier."""
    uvicorn = pytest.importorskip("uvicorn")
    assert uvicorn
    source = f"""
    import asyncio, os, sys
    sys.path.insert(0, {APPS!r})
    import isolated_work as work, uvicorn, homeloop
    from homeloop import Isolation

    async def app(scope, receive, send):
        if scope["type"] == "http":
            pid, _ = await homeloop.run_isolated(work.where, isolation=Isolation.PROCESS)
            await send({{"type": "http.response.start", "status": 200, "headers": []}})
            await send({{"type": "http.response.body", "body": str(pid != os.getpid()).encode()}})

    async def main():
        server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        answer = await reader.read()
        writer.close()
        server.should_exit = True
        await serving
        print(b"True" in answer)

    asyncio.run(main())
    """
    ended = run_source(source)
    assert ended.stdout.split() == ["True"], ended.stderr
