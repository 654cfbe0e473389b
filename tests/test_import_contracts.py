"""The import contracts bite: each is broken by one deliberate violation, and by that one alone."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS: list[dict[str, object]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"][
    "importlinter"
]["contracts"]
NAMES = {str(contract["id"]): str(contract["name"]) for contract in CONTRACTS}


@dataclass(frozen=True, slots=True)
class Violation:
    """An import that must not be: appended to ``module`` (a path under a package's ``src``)."""

    module: str
    line: str


VIOLATIONS = {
    "homeloop-floors": Violation("homeloop/callbacks.py", "import homeloop.resources"),
    "homeloop-adapters-private": Violation("homeloop/adapters/__init__.py", "import homeloop.runtime"),
    "homeloop-celery-pool": Violation(
        "homeloop/adapters/celery/pool/_threads.py", "import homeloop.adapters.celery.pool._job"
    ),
    "homeloop-celery-without-pool": Violation(
        "homeloop/adapters/celery/__init__.py", "import homeloop.adapters.celery.pool"
    ),
    "homeloop-kit-adapters": Violation("homeloop/testing/__init__.py", "import homeloop.adapters"),
    "homeloop-facade-adapters": Violation("homeloop/__init__.py", "import homeloop.adapters"),
    "homeloop-core-third-party": Violation("homeloop/runtime/__init__.py", "import httpx"),
    "homeloop-plain-data": Violation("homeloop/errors.py", "import threading"),
    "homeloop-pure-diagnosis": Violation("homeloop/diagnosis/_reading.py", "import asyncio"),
    "homeloop-service": Violation("homeloop/adapters/__init__.py", "import workflow_service.contracts"),
    "service-floors": Violation("workflow_service/contracts.py", "import workflow_service.ports"),
    "service-cli-processes": Violation("workflow_service/cli/__init__.py", "import workflow_service.usecases"),
    "service-domain-frameworks": Violation("workflow_service/domain/run.py", "import httpx"),
    "service-homeloop": Violation("workflow_service/settings.py", "import homeloop"),
    "service-homeloop-public": Violation("workflow_service/api/__init__.py", "import homeloop.runtime"),
}


# Of a contract that says several things, the others.
FURTHER = [
    ("homeloop-floors", Violation("homeloop/resources/__init__.py", "import homeloop.isolation")),
    ("homeloop-adapters-private", Violation("homeloop/adapters/__init__.py", "import homeloop.isolation._wire")),
    ("homeloop-core-third-party", Violation("homeloop/isolation/__init__.py", "import langgraph")),
    ("service-homeloop-public", Violation("workflow_service/api/__init__.py", "import homeloop.isolation")),
]


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """A copy of every package's sources, to be spoilt."""
    copies = []
    for source in sorted(ROOT.glob("packages/*/src")):
        copy = tmp_path / source.parent.name / "src"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        copies.append(copy)
    return copies


def broken(sources: list[Path]) -> set[str]:
    """Return the ids of the contracts that import-linter finds broken in the copies."""
    run = subprocess.run(
        [
            Path(sys.executable).with_name("lint-imports"),
            "--config",
            ROOT / "pyproject.toml",
            "--no-cache",
            "--no-logo",
        ],
        cwd=sources[0],
        # The copies come before the installed packages; COLUMNS keeps a contract's name on one line.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sources)), "COLUMNS": "500", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    verdicts = dict(re.findall(r"^(.+?) (KEPT|BROKEN)\b", run.stdout, flags=re.MULTILINE))
    assert set(verdicts) == set(NAMES.values()), run.stdout + run.stderr
    found = {contract for contract, name in NAMES.items() if verdicts[name] == "BROKEN"}
    assert bool(found) == bool(run.returncode)
    return found


def find(sources: list[Path], module: str) -> Path:
    """Return a module's file among the copies."""
    (path,) = [source / module for source in sources if (source / module).exists()]
    return path


def test_the_sources_keep_every_contract(sources: list[Path]) -> None:
    """A copy of the packages breaks nothing, so what the other tests see is their violation."""
    assert broken(sources) == set()


@pytest.mark.parametrize("contract", NAMES)
def test_contract_is_broken_by_its_violation(sources: list[Path], contract: str) -> None:
    """Every contract of pyproject.toml has a violation here, and notices it; no other contract does."""
    assert contract in VIOLATIONS, f"add a violation for the new contract {contract!r}"
    violation = VIOLATIONS[contract]
    with find(sources, violation.module).open("a", encoding="utf-8") as file:
        file.write(f"\n{violation.line}\n")
    assert broken(sources) == {contract}


@pytest.mark.parametrize(("contract", "violation"), FURTHER)
def test_contract_is_broken_by_a_further_violation(
    sources: list[Path], contract: str, violation: Violation
) -> None:
    """The isolation package has its floor and stays behind the facade."""
    with find(sources, violation.module).open("a", encoding="utf-8") as file:
        file.write(f"\n{violation.line}\n")
    assert broken(sources) == {contract}


@pytest.mark.parametrize(
    ("package", "contract"), [("homeloop", "homeloop-floors"), ("workflow_service", "service-floors")]
)
def test_module_without_a_floor_is_noticed(sources: list[Path], package: str, contract: str) -> None:
    """A new top-level module must be given a floor."""
    (find(sources, f"{package}/__init__.py").parent / "stray.py").write_text(
        '"""Nobody said where this belongs."""\n'
    )
    assert broken(sources) == {contract}


def test_no_violation_is_left_over() -> None:
    """A violation whose contract was removed is removed too."""
    assert set(VIOLATIONS) <= set(NAMES)
