"""Check large installed packages, print what is found and how that was judged: `make check-precision`."""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

from homeloop.cli._check._config import Config
from homeloop.cli._check._examine import examine

ROOT = Path(__file__).parents[4]
MARK = "<!-- make check-precision writes what follows -->\n"
PACKAGES = (
    "IPython",
    "aiohttp",
    "asyncpg",
    "celery",
    "gevent",
    "ipykernel",
    "langchain_core",
    "langgraph",
    "openai",
    "pip",
    "redis",
    "sqlalchemy",
    "starlette",
    "tornado",
)
JUDGED = {  # what a reader of the code said; a finding that is not here is printed as not judged
    ("asyncpg", "cluster.py", "HL108"): "wrong: on this way it is called with timeout=0, and then starts nothing; "
    "values are not followed",
    ("ipykernel", "eventloops.py", "HL114"): "right: it patches asyncio for the host",
}


def table() -> tuple[str, int]:
    """Return the table as Markdown, and how many findings nobody has judged."""
    rows, found, unjudged = [], [], 0
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            rows.append(f"| {name} | not installed | | | |")
            continue
        folder = Path(next(iter(spec.submodule_search_locations)))
        began = time.perf_counter()
        result = examine([folder], Config())
        lines = sum(len(path.read_bytes().splitlines()) for path in folder.rglob("*.py"))
        print(f"{name}: {time.perf_counter() - began:.1f} s", file=sys.stderr)
        judgements: list[str] = []
        for each in result.findings:
            file = each.spot.path.relative_to(folder).as_posix()
            judgement = JUDGED.get((name, file, each.code), "not judged")
            judgements.append(judgement)
            found.append(f"| {name} | {file}:{each.spot.line} | {each.code} | {each.message} | {judgement} |")
        unjudged += judgements.count("not judged")
        wrong = sum(not judgement.startswith("right") for judgement in judgements)
        rows.append(f"| {name} | {result.checked} | {lines} | {len(result.findings)} | {wrong} |")
    text = (
        "| package | files | lines | findings | not right |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n\n| package | place | rule | finding | judged |\n|---|---|---|---|---|\n"
        + "\n".join(found)
        + "\n"
    )
    return text, unjudged


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="put the table into this document, below its mark")
    chosen = parser.parse_args()
    shown, unjudged = table()
    print(shown)
    if chosen.write:
        text = chosen.write.read_text("utf-8")
        chosen.write.write_text(text[: text.index(MARK) + len(MARK)] + "\n" + shown, "utf-8")
    return 1 if unjudged else 0


if __name__ == "__main__":
    sys.exit(main())
