"""What is shown: whole addresses, and text of strangers that cannot steer the terminal."""

from typing import Any

import pytest

from workflow_service.cli.view import View
from workflow_service.domain.contract import Finding, FindingKind, Severity
from workflow_service.domain.document import Span
from workflow_service.local.service import Connection


def result(quote: str) -> dict[str, Any]:
    finding = Finding(FindingKind.RISK, "non-compete", "why", quote, Span(10, 20), "6.1", 2, Severity.HIGH)
    return {"document": {"filename": "a\x1b[31m.pdf"}, "findings": [finding.to_json()]}


def test_document_text_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences and markup in a document are shown as text."""
    View().findings(result("pay \x1b[2J[bold]now[/bold]\r\n\x9b31m"))

    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "[bold]now[/bold]" in shown
    assert "characters 10–20" in shown


def test_progress_of_a_terminal_takes_any_description(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar whose description holds brackets shows them and does not fail."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    view = View()

    with view.progress("Analysing") as show:
        show(50, "read [/nothing] pages")

    assert "read [/nothing] pages" in capsys.readouterr().out


def test_addresses_are_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    """An address with a long key is one line, to click on or to copy."""
    connection = Connection(1, 0.0, "http://127.0.0.1:8321/", 8, "", "", {"alice": "k" * 300})

    View().serving(connection)

    assert f"http://127.0.0.1:8321/#key={'k' * 300}\n" in capsys.readouterr().out
