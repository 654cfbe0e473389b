"""Write docs/errors, the pages of the codes, five with what is printed for a program: `make docs-errors`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from homeloop.diagnosis import CODES, markdown

HERE = Path(__file__).parent
ERRORS = Path(__file__).parents[4] / "docs" / "errors"
SHOWN = {
    "LOOP101": "01_asyncpg_pool_in_a_module",
    "LOOP103": "10_semaphore_across_runs",
    "LOOP105": "14_queue_filled_by_a_thread",
    "LOOP201": "19_sync_tool_starts_a_loop",
    "LOOP205": "25_waits_for_its_own_loop",
}
BOUND = 60.0
SERVERS = {"WILD_PG": ("TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres")}
VARYING = ((re.compile(r"0x[0-9a-f]+"), "0x7f0000000000"), (re.compile(r"Task-\d+"), "Task-1"))


def printed(code: str, script: str) -> str:
    """Return what doctor prints for a program of the corpus, without what differs from run to run."""
    servers = {name: os.environ.get(ours) or default for name, (ours, default) in SERVERS.items()}
    command = [sys.executable, "-m", "homeloop", "doctor", "--json", "--exit-code", "command", "--"]
    run = subprocess.run(
        [*command, sys.executable, f"{script}.py"],
        cwd=HERE / "corpus",
        env={**servers, **os.environ},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    for line in run.stdout.splitlines():
        if line.startswith('{"pid": ') and (told := json.loads(line))["finding"]["code"] == code:
            text: str = told["text"]
            for pattern, same in VARYING:
                text = pattern.sub(same, text)
            return text
    raise SystemExit(f"{script} was not found to be {code}:\n{run.stdout}{run.stderr}")


def pages() -> dict[Path, str]:
    """Return every page and its text."""
    shown = {code: printed(code, script) for code, script in SHOWN.items()}
    made = {ERRORS / f"{code.code}.md": markdown(code, shown.get(code.code, "")) for code in CODES}
    rows = "\n".join(f"| [{code.code}]({code.code}.md) | `{code.kind.value}` | {code.title} |" for code in CODES)
    made[ERRORS / "README.md"] = (
        "# Codes of loop faults\n\n`homeloop.diagnose(error)` names one, `homeloop explain CODE` explains it.\n"
        "\n"
        f"| code | name | what it is |\n|---|---|---|\n{rows}\n"
    )
    return made


def main() -> int:
    check = "--check" in sys.argv
    differing = []
    for path, text in pages().items():
        if not path.exists() or path.read_text("utf-8") != text:
            differing.append(path.name)
            if check:
                print(text)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
    if check and differing:
        print(f"{', '.join(differing)} differ from what the code says; run make docs-errors")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
