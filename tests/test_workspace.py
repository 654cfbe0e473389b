"""The workspace as a whole: pins, links, public names, the two commands."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("homeloop", "workflow_service")
TARGETS = ("help", "run", "demo", "test", "lint", "test-all", "clean")
# A home folder or a build folder in a file tells where it was made, and works nowhere else.
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:home|Users|root|work|mnt|builds|github)/[\w.-]+")


def tracked(*patterns: str) -> list[Path]:
    """Return the files of the repository that match git patterns, without what is deleted but not committed."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [path for name in names.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def relative(path: Path) -> str:
    """Return a path as the repository names it."""
    return path.relative_to(ROOT).as_posix()


def test_no_file_names_the_machine_it_was_made_on() -> None:
    """No text file holds an absolute path of somebody's machine."""
    found = []
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # a sample document or an image
        found += [f"{relative(path)}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
    assert found == []


def test_constraints_pin_versions_and_nothing_else() -> None:
    """constraints.txt has one `name==version` per line, no address, nothing twice."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+]+", line)] == []
    names = [re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins]
    assert len(names) == len(set(names))


LOOK_AT_PUBLIC_NAMES = """
import importlib, pkgutil, sys

def look(name):
    module = importlib.import_module(name)
    public = list(getattr(module, "__all__", ()))
    if public != sorted(set(public)):
        print(f"{name}.__all__ is not sorted: {sorted(set(public))}")
    for missing in public:
        if not hasattr(module, missing):
            print(f"{name}.__all__ names {missing}, which is not there")
    if not module.__doc__:
        print(f"{name} does not say what it is")

for package in sys.argv[1:]:
    look(package)
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            look(found.name)
"""


def test_public_names_exist(tmp_path: Path) -> None:
    """Every public module says what it is; its __all__ is sorted, has no name twice, and every name is there."""
    # In a process of its own: a worker's module makes a Celery application and reads settings when imported.
    settings = {"DATABASE_URL": "postgresql://127.0.0.1:1/none", "BROKER_URL": "memory://"}
    look = subprocess.run(
        [sys.executable, "-c", LOOK_AT_PUBLIC_NAMES, *PACKAGES],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (look.returncode, look.stdout) == (0, ""), look.stdout + look.stderr


def links(text: str) -> Iterator[str]:
    """Yield the targets of a Markdown text's links, code left out."""
    prose = re.sub(r"^(```|~~~).*?^\1|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)", prose)
    yield from re.findall(r"^\[[^\]]+\]:\s+(\S+)", prose, flags=re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings, as forges make them."""
    headings = re.findall(r"^#+\s+(.+?)\s*$", path.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", tracked("*.md"), ids=relative)
def test_links_lead_somewhere(path: Path) -> None:
    """Every link to a file of the repository finds it, and its heading."""
    dead = []
    for link in links(path.read_text("utf-8")):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        headed = not parts.fragment or (
            target.suffix == ".md" and target.is_file() and parts.fragment in anchors(target)
        )
        if not target.exists() or not headed:
            dead.append(link)
    assert dead == []


def test_readme_is_short() -> None:
    """The README is read in one go: at most 120 lines."""
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("there is no README yet")
    assert len(readme.read_text("utf-8").splitlines()) <= 120


def test_ci_script_is_sound() -> None:
    """.ci/run can be executed and parses, and stops at the first error."""
    script = ROOT / ".ci" / "run"
    subprocess.run(["bash", "-n", script], check=True)
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text("utf-8")


def test_make_has_its_targets() -> None:
    """`make help` lists every target that the documents name."""
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} >= set(TARGETS)
