"""
Celery's own integration tests on the asyncio pool and, to compare, on Celery's threads pool.

``make celery-suite`` fetches the source distribution of the installed Celery, starts a Redis of its own, and runs
the suite with Celery's tasks as they are and with every one of them made ``async def``. It prints what differs and
fails if the pool fails a test that threads passes. A failed test is tried again alone, as Celery's CI does.

The module is the pytest plugin of those runs, too.
"""

import ast
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ET
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

POOLS = {"threads": "threads", "asyncio": "homeloop.adapters.celery.pool:TaskPool"}
FORMS = ("as they are", "async")
FILES = ("test_tasks.py", "test_canvas.py")
# It registers its task a second time, which threads cannot run: that would disturb all tests after it.
ALONE = "t/integration/test_tasks.py::test_class_based_tasks"
RUN_BOUND = 3600.0  # seconds for one run of the suite
TEST_BOUND = 300  # seconds for one test
ATTEMPTS = 3  # CPython 3.11 may fail to parse while another thread does, which ends pytest
RETRIES = 3  # of a failed test, alone: some of the suite race with a worker in their own process
START_BOUND = 10.0  # seconds for Redis

Outcomes = dict[str, str]  # by test: passed, failed or skipped

# -- the plugin ---------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Have Celery's test apps run async tasks."""
    from celery.contrib.testing import app as testing

    from homeloop.adapters.celery import install

    original = testing.TestApp

    def with_async_tasks(*args: Any, **kwargs: Any) -> Any:
        app = original(*args, **kwargs)
        install(app)
        return app

    testing.TestApp = with_async_tasks


def pytest_fixture_setup(fixturedef: Any, request: pytest.FixtureRequest) -> str | None:
    """Answer for the fixture that the suite hard-codes: the pool of its worker."""
    if fixturedef.argname != "celery_worker_pool":
        return None
    pool = os.environ["CELERY_SUITE_POOL"]
    fixturedef.cached_result = (pool, fixturedef.cache_key(request), None)
    return pool


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound each test, sooner than the suite does."""
    for item in items:
        item.own_markers = [marker for marker in item.own_markers if marker.name != "timeout"]
        item.add_marker(pytest.mark.timeout(TEST_BOUND))


# -- the tasks ----------------------------------------------------------------------------------------


class Asynchronous(ast.NodeTransformer):
    """Makes the suite's tasks coroutine functions that wait as such and await each other."""

    def __init__(self, tree: ast.Module) -> None:
        self.tasks = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and any("shared_task" in ast.dump(d) for d in node.decorator_list)
        }
        self._in_task = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        is_task = node.name in self.tasks or node.name == "run"
        was_in_task, self._in_task = self._in_task, is_task
        self.generic_visit(node)
        self._in_task = was_in_task
        if not is_task:
            return node
        return ast.AsyncFunctionDef(
            **{name: getattr(node, name, None) for name in (*node._fields, *node._attributes)}
        )

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        if any(isinstance(part, ast.AsyncFunctionDef) for part in node.body):
            node.bases = [ast.Name("AsyncTask", ast.Load())]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not (self._in_task and isinstance(node.func, ast.Name)):
            return node
        if node.func.id == "sleep":
            node.func = ast.Attribute(ast.Name("asyncio", ast.Load()), "sleep", ast.Load())
        elif node.func.id not in self.tasks:
            return node
        return ast.Await(node)


def make_async(tasks: Path) -> None:
    """Rewrite the suite's tasks."""
    tree = ast.parse(tasks.read_text("utf-8"))
    changed = ast.unparse(ast.fix_missing_locations(Asynchronous(tree).visit(tree)))
    imports = "import asyncio\nfrom homeloop.adapters.celery import AsyncTask\n"
    tasks.write_text(imports + changed, "utf-8")


# -- the runs -----------------------------------------------------------------------------------------


def fetch(folder: Path) -> Path:
    """Unpack the source distribution of the installed Celery; return where it is."""
    what = ("--no-deps", "--no-binary", "celery", f"celery=={version('celery')}")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", *what, "--dest", str(folder)],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    [archive] = folder.glob("celery-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def copy_tests(source: Path, folder: Path, form: str) -> None:
    """Make a folder with the suite alone, so that the Celery that is installed is what runs."""
    shutil.copytree(source / "t", folder / "t")
    shutil.copy(source / "pyproject.toml", folder)
    if form == "async":
        make_async(folder / "t/integration/tasks.py")


@contextmanager
def redis(folder: Path) -> Iterator[int]:
    """A Redis server of our own, as the suite empties what it uses; yield its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = (
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "no",
    )
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_BOUND
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def run(folder: Path, pool: str, tests: list[str]) -> Outcomes:
    """Run tests of the suite on a pool, with a Redis and a worker of their own."""
    report = folder / "report.xml"
    plugins = ("-p", "celery.contrib.pytest", "-p", "celery_suite", "-p", "no:cacheprovider")
    paths = os.pathsep.join((str(folder), str(Path(__file__).parent)))
    for _ in range(ATTEMPTS):
        report.unlink(missing_ok=True)
        with redis(folder) as port, (folder / "log").open("ab") as log:
            url = f"redis://127.0.0.1:{port}/0"
            suite = {"TEST_BROKER": url, "TEST_BACKEND": url, "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(port)}
            ours = {"CELERY_SUITE_POOL": POOLS[pool], "PYTHONPATH": paths, "WORKER_LOGLEVEL": "INFO"}
            ended = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "--tb=short", *plugins, f"--junit-xml={report}", *tests],
                cwd=folder,
                env=os.environ | suite | ours,
                timeout=RUN_BOUND,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if ended.returncode not in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.INTERRUPTED):
            return dict(outcomes(report)) if report.exists() else {}
    return {}


def outcomes(report: Path) -> Iterator[tuple[str, str]]:
    """Yield each test of a report, by a name that pytest takes, and what became of it."""
    for case in ET.parse(report).iter("testcase"):
        path, _, kind = case.attrib["classname"].rpartition(".")
        name = f"{path.replace('.', '/')}.py::{kind}::{case.attrib['name']}"
        parts = {part.tag for part in case}
        yield name, "failed" if parts & {"failure", "error"} else "skipped" if "skipped" in parts else "passed"


def measure(folder: Path, pool: str, only: str | None) -> Outcomes:
    """Run the suite on a pool, and what failed once more, each test alone."""
    chosen = ["-k", only] if only else []
    found = run(folder, pool, [f"t/integration/{name}" for name in FILES] + [f"--deselect={ALONE}", *chosen])
    found |= run(folder, pool, [ALONE, *chosen])
    for _ in range(RETRIES):
        for test in [test for test, outcome in found.items() if outcome == "failed"]:
            found |= run(folder, pool, [test])
    return found


def main() -> int:
    """Run it all, at the same time; return 1 if the pool fails a test that threads passes."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("-k", dest="only", metavar="EXPRESSION", help="only tests that pytest's -k would choose")
    parser.add_argument("--keep", type=Path, help="keep the suite and the logs in this empty folder")
    options = parser.parse_args()
    worse = 0
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor() as several:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        source = fetch(folder)
        print(f"Celery {version('celery')}, its integration tests {', '.join(FILES)}, Redis, one task at a time")
        pending: dict[tuple[str, str], Future[Outcomes]] = {}
        for form in FORMS:
            for pool in POOLS:
                here = folder / f"{pool}-{form.replace(' ', '-')}"
                copy_tests(source, here, form)
                pending[form, pool] = several.submit(measure, here, pool, options.only)
        for form in FORMS:
            print(f"\n### tasks {form}\n")
            for pool in POOLS:
                counts = Counter(pending[form, pool].result().values())
                print(
                    f"{pool}: " + ", ".join(f"{counts[outcome]} {outcome}" for outcome in sorted(counts)),
                    flush=True,
                )
            worse += differences(pending[form, "threads"].result(), pending[form, "asyncio"].result())
    return 1 if worse else 0


def differences(threads: Outcomes, pool: Outcomes) -> int:
    """Print the tests whose outcome differs, or is a failure; return how many only the pool fails."""
    worse = 0
    for test in sorted(threads.keys() | pool.keys()):
        before, here = threads.get(test, "did not run"), pool.get(test, "did not run")
        if before != here or here == "failed":
            print(f"- {test}: threads {before}, asyncio {here}")
        worse += before == "passed" and here != "passed"
    return worse


if __name__ == "__main__":
    sys.exit(main())
