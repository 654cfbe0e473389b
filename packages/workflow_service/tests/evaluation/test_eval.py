"""make eval: what it counts, on files made here; contracts by others are fetched by who runs it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from workflow_service.testing.model_server import running_model_server

EVALUATION = Path(__file__).parents[2] / "evaluation"
TEXT = (
    "SUPPLY AGREEMENT between Oak Tools Ltd (the “Seller”) and Elm GmbH (the “Buyer”), dated March 1, 2025.\n\n"
    "1. Law. This Agreement is governed by the laws of Ireland.\n"
    "2. Rivals. The Buyer shall not compete with the Seller. The Seller may audit the books without notice.\n"
    "3. Damages. The Buyer shall pay liquidated damages of USD 5.\n"
)


def question(category: str, *answers: str) -> dict[str, Any]:
    return {
        "id": f"supply__{category}",
        "question": "…",
        "is_impossible": not answers,
        "answers": [{"text": answer, "answer_start": TEXT.index(answer)} for answer in answers],
    }


def wheel(folder: Path, name: str, member: str, text: str) -> None:
    with zipfile.ZipFile(folder / f"{name}-any.whl", "w") as file:
        file.writestr(f"x.dist-info/{member}", text)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Wheels that hold the labelled words of each contract and nothing else: nothing is fetched."""
    sys.path.insert(0, str(EVALUATION))
    try:
        from packaged import PACKAGED, UNSEEN
    finally:
        sys.path.remove(str(EVALUATION))
    texts: dict[tuple[str, str], str] = {}
    for each in (*PACKAGED, *UNSEEN):
        words = "\n\n".join([each.begin, *(label.place for label in each.labels), each.end])
        key = (f"{each.package.replace('-', '_')}-{each.version}", each.member)
        texts[key] = texts.get(key, "") + words + "\n\n"
    for (name, member), text in texts.items():
        wheel(tmp_path, name, member, text)
    return tmp_path


def evaluate(cache: Path, *arguments: str, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WORKFLOW_")}
    ended = subprocess.run(
        [sys.executable, str(EVALUATION), "--cache", str(cache), *arguments],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def row(page: str, section: str, name: str) -> list[str]:
    table = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    [found] = [line for line in table.split("\n") if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


def test_the_samples_are_read_without_a_mistake_and_cuad_is_counted_by_its_categories(
    cache: Path, tmp_path: Path
) -> None:
    """Found, missed and wrong: of a file in CUAD's form, with precision only where all places are marked."""
    questions = [
        question("Parties", "Oak Tools Ltd", "Elm GmbH"),
        question("Agreement Date", "March 1, 2025"),
        question("Governing Law", "governed by the laws of Ireland"),
        question("Non-Compete"),  # a lawyer saw none: ours is wrong
        question("Liquidated Damages", "The Buyer shall pay liquidated damages of USD 5."),
        question("Exclusivity", "The Seller may audit the books"),  # ours finds none: missed
        question("Document Name", "SUPPLY AGREEMENT"),  # nothing of ours
    ]
    file = tmp_path / "CUADv1.json"
    paragraphs = [{"context": TEXT, "qas": questions}]
    file.write_text(json.dumps({"version": "v", "data": [{"title": "supply", "paragraphs": paragraphs}]}))
    document = tmp_path / "eval.md"
    document.write_text("By hand.\n\n<!-- make eval writes what follows -->\n\nOld.\n", encoding="utf-8")
    page = evaluate(cache, "--data", str(tmp_path), "--write", str(document))
    assert document.read_text(encoding="utf-8") == (
        f"By hand.\n\n<!-- make eval writes what follows -->\n\n{page[:-1]}"
    )
    assert row(page, "CUAD", "Parties") == ["2", "1.00", "1.00", "1.00"]
    assert row(page, "CUAD", "Agreement Date") == ["1", "-", "1.00", "-"]
    assert row(page, "CUAD", "Governing Law") == ["1", "1.00", "1.00", "1.00"]
    assert row(page, "CUAD", "Non-Compete") == ["0", "0.00", "-", "-"]
    assert row(page, "CUAD", "Liquidated Damages") == ["1", "1.00", "1.00", "1.00"]
    assert row(page, "CUAD", "Exclusivity") == ["1", "-", "0.00", "-"]
    assert "Document Name" not in page
    assert row(page, "The samples", "obligation")[1:] == ["1.00", "1.00", "1.00"]
    assert "No language model was asked." in page


def test_a_configured_model_is_measured_beside_the_rules(cache: Path) -> None:
    """What both find, in columns of their own."""
    with running_model_server() as server:
        page = evaluate(
            cache, WORKFLOW_MODEL="openai:reader", WORKFLOW_MODEL_KEY="k", WORKFLOW_MODEL_BASE_URL=server.url
        )
    assert "The language model was `openai:reader`." in page
    by_rules, both = row(page, "The samples", "risk")[1:4], row(page, "The samples", "risk")[4:]
    assert by_rules == ["1.00", "1.00", "1.00"]
    assert both[1] == "1.00"


def test_a_file_of_another_form_is_named(tmp_path: Path, cache: Path) -> None:
    """Not a traceback through the loader's insides alone: the error says which file and what it lacks."""
    file = tmp_path / "other.json"
    file.write_text('{"data": [{"title": "x"}]}')
    with pytest.raises(AssertionError, match=r"other\.json has not the form of CUADv1\.json: KeyError"):
        evaluate(cache, "--data", str(file))
