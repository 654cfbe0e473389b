"""What is shown: whole addresses, and text of strangers that cannot steer the terminal."""

from pathlib import Path
from typing import Any

import pytest

from workflow_service.cli.view import View
from workflow_service.domain.contract import Finding, FindingKind, Severity
from workflow_service.domain.document import Span
from workflow_service.local.abandoned import AbandonedDatabase
from workflow_service.local.errors import LocalError
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


def abandoned(name: str, kept_for: float) -> AbandonedDatabase:
    return AbandonedDatabase(f"/srv/ann/{name}", Path("/var/lib/service") / name, 40_000_000, kept_for)


@pytest.mark.parametrize(
    ("databases", "line"),
    [
        ([], ""),
        (
            [abandoned("one", 3601)],
            "Of homes that are gone: kept the database of /srv/ann/one (/var/lib/service/one, 40 MB) for up to 2 "
            "h more, should a home come back\n",
        ),
        (
            [abandoned("a", 0), *(abandoned(str(each), 3600 * each) for each in range(1, 24))],
            "Of homes that are gone: removed the database of /srv/ann/a (/var/lib/service/a, 40 MB); "
            "kept 23 databases (/var/lib/service, 920 MB) for up to 23 h more, should a home come back\n",
        ),
    ],
)
def test_databases_without_a_home_are_told_of_in_one_line(
    capsys: pytest.CaptureFixture[str], databases: list[AbandonedDatabase], line: str
) -> None:
    """However many there are: one by its home, several by their number and what they take."""
    View().abandoned(databases)
    assert capsys.readouterr().out == line


def test_an_error_tells_of_its_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Its path and its end; of one in which nothing is, that nothing is."""
    log = tmp_path / "api.log"
    View().error(LocalError("it ended", log))
    assert capsys.readouterr().err == f"error: it ended\n--- nothing is in {log}\n"
    log.write_text("last words\n")
    View().error(LocalError("it ended", log))
    assert capsys.readouterr().err == f"error: it ended\n--- the end of {log}\nlast words\n"
