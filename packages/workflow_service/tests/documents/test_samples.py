"""The sample contracts: what ships says what its source says."""

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from workflow_service.domain.document import MEDIA_TYPES, DocumentText
from workflow_service.gateways.document_parser import DocumentParser


@pytest.fixture
def build(sources: Path) -> ModuleType:
    """The program that builds the samples."""
    spec = importlib.util.spec_from_file_location("samples_source_build", sources / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(parser: DocumentParser, path: Path) -> DocumentText:
    return asyncio.run(parser.parse(path.read_bytes(), MEDIA_TYPES[path.suffix]))


def test_the_word_sample_is_its_source(parser: DocumentParser, samples: Path, sources: Path) -> None:
    """Every paragraph, number and table row is read back as it was written."""
    source = (sources / "services-agreement.txt").read_text(encoding="utf-8").strip()
    assert parsed(parser, samples / "services-agreement.docx").text == source


def test_the_pdf_sample_is_its_source(parser: DocumentParser, samples: Path, sources: Path) -> None:
    """Every word is read back in order, and nothing of headers and footers."""
    source = (sources / "mutual-nda.txt").read_text(encoding="utf-8")
    found = parsed(parser, samples / "mutual-nda.pdf")
    assert found.text.split() == source.split()
    assert len(found.pages) == 3


def test_a_build_gives_the_same_bytes_again(build: ModuleType, tmp_path: Path) -> None:
    """Two builds cannot be told apart, whenever they are made."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        build.main(folder)
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert first == second


def test_a_build_says_what_ships(build: ModuleType, parser: DocumentParser, samples: Path, tmp_path: Path) -> None:
    """The shipped files are those that the program builds."""
    build.main(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in samples.iterdir()}
    for name in names:
        assert parsed(parser, tmp_path / name) == parsed(parser, samples / name)
