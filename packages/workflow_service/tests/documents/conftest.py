"""A parser with ordinary limits, and the check that no reading process outlives a test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from workflow_service.gateways.document_parser import DocumentParser

SAMPLES = Path(__file__).parents[2] / "src" / "workflow_service" / "samples"
SOURCES = Path(__file__).parents[2] / "samples_source"


@pytest.fixture
def parser() -> DocumentParser:
    """A parser that gives documents 30 seconds and 1 GiB."""
    return DocumentParser(timeout=30, memory_bytes=1024**3)


@pytest.fixture
def new_children() -> Callable[[], list[psutil.Process]]:
    """Return the child processes, dead or alive, that there are since the test began."""
    before = set(psutil.Process().children())
    return lambda: [child for child in psutil.Process().children() if child not in before]


@pytest.fixture(autouse=True)
def no_process_left(new_children: Callable[[], list[psutil.Process]]) -> Iterator[None]:
    """Fail a test that leaves a child process behind."""
    yield
    assert new_children() == []


@pytest.fixture
def samples() -> Path:
    """Where the sample contracts are."""
    return SAMPLES


@pytest.fixture
def sources() -> Path:
    """Where the sources of the sample contracts are, and the program that builds them."""
    return SOURCES
