"""The how-to about serving: its code runs as written, save the address of the service."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

HOWTO = Path(__file__).parents[4] / "docs" / "howto" / "serving.md"
SAMPLES = ("serving", "celery-samples", "langgraph-samples")
REFERENCE = HOWTO.parents[1] / "reference" / "serving.md"
TESTS = Path(__file__).parents[1]
BOUND = 60.0  # seconds; tells a hang from an answer
CHECKS = {
    "Call async": """
        assert (vector, vectors) == ([3.0], [[3.0], [5.0], [4.0]])
    """,
    "FastAPI": """
        from fastapi.testclient import TestClient

        with TestClient(app) as client:
            assert [client.get(way).json() for way in ("/async", "/sync")] == ["ok", "ok"]
    """,
    "Flask": """
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: app.test_client().get("/").json, range(60)))
        assert answers == ["ok"] * 60
    """,
    "Django": """
        import asyncio, django
        from django.conf import settings
        from django.test import AsyncClient, Client

        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["testserver"])
        django.setup()
        for _ in range(2):
            assert [Client().get(way).json() for way in ("/sync", "/async")] == [{"answer": "ok"}] * 2

        async def main():
            return [(await AsyncClient().get(way)).json() for way in ("/sync", "/async")]

        for _ in range(2):
            assert asyncio.run(main()) == [{"answer": "ok"}] * 2
    """,
    "MLflow": """
        texts = pd.DataFrame({"text": [f"text {number}" for number in range(100)]})
        assert Classifier().predict(None, texts) == ["ok"] * 100
    """,
}


def block(heading: str) -> str:
    """Return the Python below a heading that begins so."""
    found = re.search(
        rf"^#+ {heading}.*?^```python\n(.*?)^```$", HOWTO.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found is not None, heading
    return found[1]


@pytest.mark.parametrize("heading", CHECKS)
def test_the_how_to_runs(heading: str, site: Any, script: Any) -> None:
    """Each host's example, asked as that host asks it."""
    site.answers |= {f"/?text=text+{number}": lambda _: "ok" for number in range(100)}
    source = block(heading).replace("https://models.example", site.url)
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
    ended = script(f"{source}\n{dedent(CHECKS[heading])}", timeout=BOUND, **environment)
    assert ended.returncode == 0, ended.stderr


def test_the_how_tos_notebook_runs(site: Any, notebook: Any) -> None:
    """In a real kernel, with the two cells that its text names."""
    cells = [block("Notebooks").replace("https://models.example", site.url), 'print(await fetch("/"))\n']
    cells.append('import homeloop\nprint(await homeloop.arun(fetch, "/"))\n')
    assert notebook("#%%\n".join(cells)) == "ok\nok\nok\n"


def test_the_reference_names_tests_that_are_there() -> None:
    """Each file of its tables, and each test named beside a file, exists."""
    named = re.findall(r"`(\w+/test_\w+\.py)`((?:[:,] `test_\w+\*?`)*)", REFERENCE.read_text("utf-8"))
    assert named
    for file, tests in named:
        source = (TESTS / file).read_text("utf-8")
        for test in re.findall(r"test_\w+", tests):
            assert f"def {test}" in source, f"{file}: {test}"


@pytest.mark.parametrize("page", SAMPLES)
def test_the_tables_of_samples_name_tests_that_are_there(page: str) -> None:
    """What the last column of a table calls a test, or a file of tests, is one."""
    files = list(TESTS.rglob("test_*.py"))
    there = {name for path in files for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))}
    there.update(path.name for path in files)
    table = [line for line in REFERENCE.with_stem(page).read_text("utf-8").splitlines() if line.startswith("|")]
    named = set(re.findall(r"`[\w/]*?(test_\w+(?:\.py)?)[`:]", " ".join(line.split("|")[-2] for line in table)))
    assert named
    assert named <= there
