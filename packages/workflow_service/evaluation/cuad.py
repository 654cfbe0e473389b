"""The Contract Understanding Atticus Dataset: 510 contracts of companies, labelled by lawyers.

It is licensed under CC BY 4.0 and is fetched by who runs this: https://www.atticusprojectai.org/cuad. The file is
``CUADv1.json`` (in the form of SQuAD 2.0); ``test.json`` and ``train_separate_questions.json`` have the same form.
Hendrycks, Burns, Chen, Ball: CUAD, an expert-annotated NLP dataset for legal contract review, arXiv 2103.06268.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scoring import Contract, Gold

from workflow_service.domain.document import Span

# What a category may be found as. Its lawyers marked every place, so where a category means what one of ours
# means, what we find elsewhere is wrong: those stand in _JUDGED. The others tell recall only: «Agreement Date» is
# one date of many, and a liability cap is marked also where it binds both sides.
_CATEGORIES: Mapping[str, frozenset[str]] = {
    "Parties": frozenset({"party"}),
    "Agreement Date": frozenset({"date"}),
    "Effective Date": frozenset({"date"}),
    "Expiration Date": frozenset({"date", "term"}),
    "Renewal Term": frozenset({"renewal", "risk:automatic renewal"}),
    "Notice Period To Terminate Renewal": frozenset({"notice_period"}),
    "Governing Law": frozenset({"governing_law"}),
    "Non-Compete": frozenset({"risk:non-compete"}),
    "Exclusivity": frozenset({"risk:exclusivity"}),
    "No-Solicit Of Customers": frozenset({"risk:non-solicitation"}),
    "No-Solicit Of Employees": frozenset({"risk:non-solicitation"}),
    "Termination For Convenience": frozenset({"risk:termination at will by one side"}),
    "Ip Ownership Assignment": frozenset({"risk:broad assignment of intellectual property"}),
    "Uncapped Liability": frozenset({"risk:unlimited liability"}),
    "Cap On Liability": frozenset({"risk:liability cap for one side", "risk:exclusion of liability", "money"}),
    "Liquidated Damages": frozenset({"risk:liquidated damages"}),
    "Insurance": frozenset({"obligation", "money"}),
}
_JUDGED: Mapping[str, str] = {
    "party": "Parties",
    "governing_law": "Governing Law",
    "risk:non-compete": "Non-Compete",
    "risk:exclusivity": "Exclusivity",
    "risk:broad assignment of intellectual property": "Ip Ownership Assignment",
    "risk:liquidated damages": "Liquidated Damages",
}


def cuad_contracts(path: Path) -> Iterator[Contract]:
    """Yield the contracts of a file, or of ``CUADv1.json`` in a folder.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON, or has another form.
    """
    file = path / "CUADv1.json" if path.is_dir() else path
    try:
        for document in json.loads(file.read_text(encoding="utf-8"))["data"]:
            for paragraph in document["paragraphs"]:
                yield Contract(document["title"], paragraph["context"], _gold(paragraph["qas"]), _JUDGED)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} has not the form of CUADv1.json: {error!r}") from error


def _gold(questions: list[Any]) -> tuple[Gold, ...]:
    return tuple(
        Gold(category, _CATEGORIES[category], "", (Span(begin, begin + len(answer["text"])),))
        for question in questions
        if (category := question["id"].rpartition("__")[2]) in _CATEGORIES
        for answer in question["answers"]
        if (begin := answer["answer_start"]) >= 0
    )
