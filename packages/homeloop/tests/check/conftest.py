"""Checking of files that a test writes."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from homeloop.cli._check._config import Config
from homeloop.cli._check._examine import examine


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., list[str]]:
    """Check files that are given by name, return the codes with their lines: ``file.py:3 HL101``."""

    def check(**files: str) -> list[str]:
        for name, source in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source), "utf-8")
        result = examine([tmp_path], Config())
        assert result.unread == ()
        return [f"{each.spot.path.name}:{each.spot.line} {each.code}" for each in result.findings]

    return check
