"""Write docs/rules, the pages of `homeloop check`, with what it prints for the examples: `make docs-rules`."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from homeloop.cli._check._catalogue import RULES
from homeloop.cli._check._config import Config
from homeloop.cli._check._examine import examine
from homeloop.cli._check._examples_bad import BAD
from homeloop.cli._check._formats import text
from homeloop.cli._check._pages import rule_markdown

ROOT = Path(__file__).parents[4]
RULE_PAGES = ROOT / "docs" / "rules"


def printed(source: str) -> str:
    """Return what is printed for a module."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path("example.py").write_text(source, "utf-8")
            return text(examine([Path("example.py")], Config()))
        finally:
            os.chdir(before)


def pages() -> dict[Path, str]:
    """Return every page and its text."""
    made = {RULE_PAGES / f"{rule.code}.md": rule_markdown(rule, printed(BAD[rule.code])) for rule in RULES}
    rows = "\n".join(f"| [{rule.code}]({rule.code}.md) | `{rule.name}` | {rule.title} |" for rule in RULES)
    made[RULE_PAGES / "README.md"] = (
        "# Rules of `homeloop check`\n\n`homeloop check PATH` applies them, `homeloop explain HL101` "
        "explains one; [how to use it](../howto/check.md).\n\n"
        f"| code | name | what it finds |\n|---|---|---|\n{rows}\n"
    )
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the pages are as they should be")
    check = parser.parse_args().check
    made = pages()
    differing = [path.name for path, page in made.items() if not path.exists() or path.read_text("utf-8") != page]
    if check:
        print("\n".join(f"{name} differs from what the code says; run make docs-rules" for name in differing))
        return 1 if differing else 0
    RULE_PAGES.mkdir(exist_ok=True)
    for path, page in made.items():
        path.write_text(page, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
