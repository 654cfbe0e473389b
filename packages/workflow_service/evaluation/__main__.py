"""
Measure how good the contract analysis is, by rules and with the language model that the environment names.

Sources: the two sample contracts, which we wrote; contracts written by others that packages on PyPI carry (fetched
by pip); with --data the Contract Understanding Atticus Dataset, a file or folder that you fetched.
"""

import argparse
import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cuad import cuad_contracts
from packaged import PACKAGED, UNSEEN, packaged_contracts
from page import Part, page
from reading import Reader, by_rules, opened_reader
from scoring import Contract, Label, Score, labelled, score

HERE = Path(__file__).parent
MARK = "<!-- make eval writes what follows -->\n"
SAMPLES = HERE.parent / "samples_source"
sys.path.insert(0, str(HERE.parent / "tests" / "analysis"))

from gold import NDA, SERVICES, Gold  # noqa: E402 - the tests' labels of the samples


def sample_contracts() -> list[Contract]:
    """Return the samples with what a careful reader finds in them."""
    named = {"mutual-nda": NDA, "services-agreement": SERVICES}
    return [
        _sample(name, (SAMPLES / f"{name}.txt").read_text(encoding="utf-8"), gold) for name, gold in named.items()
    ]


def _sample(name: str, text: str, gold: Iterable[Gold]) -> Contract:
    labels = [Label(kind, label if kind == "risk" else value, quote) for kind, label, value, _, quote in gold]
    free = [Label(each.kind, "" if each.kind == "obligation" else each.value, each.place) for each in labels]
    return Contract(name, text, labelled(text, free))


async def measure(title: str, about: str, contracts: Sequence[Contract], reader: Reader | None) -> Part:
    """Analyse the contracts of one source and score what was found."""
    rules: defaultdict[str, Score] = defaultdict(Score)
    both: defaultdict[str, Score] = defaultdict(Score)
    for contract in contracts:
        document = by_rules(contract.text)
        for row, counted in score(contract, document.findings).items():
            rules[row].add(counted)
        if reader is not None:
            for row, counted in score(contract, await reader(document)).items():
                both[row].add(counted)
            print(f"{contract.title}: read", file=sys.stderr)
    chars = sum(len(contract.text) for contract in contracts)
    return Part(title, about, len(contracts), chars, rules, both if reader is not None else None)


async def main(arguments: argparse.Namespace) -> None:
    """Measure, write the page, and print it."""
    async with opened_reader() as (model, reader):
        parts = [
            await measure(
                "A contract that nothing was mended for",
                "A licence agreement as those below, but no rule was changed for what is missed in it.",
                packaged_contracts(UNSEEN, arguments.cache),
                reader,
            ),
            await measure(
                "Contracts written by others",
                "Licence agreements that packages on PyPI carry, labelled by hand (`evaluation/packaged.py`). The "
                "texts are fetched, not shipped. They are one-sided, and the other party is «you».",
                packaged_contracts(PACKAGED, arguments.cache),
                reader,
            ),
            await measure(
                "The samples",
                "Written by us, with the rules made beside them: this shows that nothing broke, and not more.",
                sample_contracts(),
                reader,
            ),
        ]
        if arguments.data is not None:
            contracts = list(cuad_contracts(arguments.data))[: arguments.limit]
            about = (
                f"`{arguments.data.name}`, by its categories. Where it marks less than we look for: recall only."
            )
            parts.insert(0, await measure("CUAD", about, contracts, reader))
    text = page(parts, datetime.now(UTC).date(), model)
    if arguments.write is not None:
        before = arguments.write.read_text(encoding="utf-8")
        arguments.write.write_text(before[: before.index(MARK) + len(MARK)] + "\n" + text, encoding="utf-8")
    print(text)
    if arguments.examples:
        for part in parts:
            for row, counted in sorted((part.with_model or part.by_rules).items()):
                for example in counted.examples:
                    print(f"{row}: {example}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CUADv1.json, or the folder it is in")
    parser.add_argument("--limit", type=int, help="contracts of it at most")
    parser.add_argument("--cache", type=Path, default=HERE / ".cache", help="where fetched packages are kept")
    parser.add_argument("--write", type=Path, help="put the tables into this document, below its mark")
    parser.add_argument("--examples", action="store_true", help="print what was missed and what was wrong")
    asyncio.run(main(parser.parse_args()))
