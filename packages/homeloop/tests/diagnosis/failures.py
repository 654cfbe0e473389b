"""Run a folder of failing scripts under ``homeloop doctor``, print what it made of them: `make failures`."""

import argparse
import ast
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
SERVERS = {"WILD_PG": "TEST_DATABASE_URL", "WILD_REDIS": "TEST_REDIS_URL"}
DEFAULTS = {
    "WILD_PG": "postgresql://postgres@127.0.0.1:5432/postgres",
    "WILD_REDIS": "redis://127.0.0.1:6379/15",
}
BOUND = 45.0  # seconds a script may take, unless its header says otherwise
GRACE = 10.0
KINDS = {  # what a header may call it, where that is not the finding's own name
    "NO_RUNNING_LOOP": "no-current-loop",
    "LOOP_CAPTURED_THEN_CLOSED": "loop-captured",
    "LOOP_CAPTURED_AT_IMPORT": "loop-captured",
    "SYNC_BRIDGE_ON_OWN_LOOP": "sync-bridge-deadlock",
    "CLEANUP_IN_OTHER_LOOP": "late-cleanup",
    "INTERPRETER_SHUTDOWN": "late-cleanup",
    "NEST_REENTRANCY": "nest-unpatchable",
}
MISSING = re.compile(r"(ModuleNotFoundError: No module named \S+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What doctor made of one script. ``expected`` is None for a look-alike."""

    script: str
    expected: str | None
    kinds: tuple[str, ...]
    before: bool
    absent: str

    @property
    def is_right(self) -> bool:
        return not self.kinds if self.expected is None else self.expected in self.kinds


def header(script: Path) -> dict[str, str]:
    """Return the fields of a script's docstring: one a line, ``name: value``."""
    text = ast.get_docstring(ast.parse(script.read_text("utf-8")), clean=False) or ""
    return dict(re.findall(r"^(\w+): *(.*?) *$", text, flags=re.MULTILINE))


def expected_kind(fields: dict[str, str]) -> str | None:
    """Return the finding that a header asks for; None for a look-alike."""
    name = fields["class"]
    if name.startswith("LOOKALIKE"):
        return None
    return KINDS.get(name, name.lower().replace("_", "-"))


def examine(script: Path) -> Outcome:
    """Run a script under doctor, for as long as it may take."""
    fields = header(script)
    servers = {
        name: os.environ.get(name) or os.environ.get(ours) or DEFAULTS[name] for name, ours in SERVERS.items()
    }
    command = [sys.executable, "-m", "homeloop", "doctor", "--json", "--exit-code", "command", "--"]
    with subprocess.Popen(
        [*command, sys.executable, script.name],
        cwd=script.parent,
        env={**servers, **os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=float(fields.get("timeout") or BOUND))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # doctor ends the program and tells what it has
            try:
                output, _ = process.communicate(timeout=GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
    findings = [json.loads(line) for line in output.splitlines() if line.startswith('{"pid": ')]
    kinds = tuple(dict.fromkeys(each["finding"]["kind"] for each in findings))
    expected = expected_kind(fields)
    before = any(each["caught_before"] and each["finding"]["kind"] == expected for each in findings)
    absent = MISSING.search(output)
    return Outcome(script.stem, expected, kinds, before, absent[1] if absent and not findings else "")


def table(outcomes: list[Outcome]) -> str:
    """Return what was found as Markdown."""
    ran = [each for each in outcomes if not each.absent]
    faults = [each for each in ran if each.expected is not None]
    alike = [each for each in ran if each.expected is None]
    lines = [
        "| faults | found | class right | seen before the driver failed | look-alikes | false alarms |",
        "|---|---|---|---|---|---|",
        f"| {len(faults)} | {sum(bool(each.kinds) for each in faults)} | {sum(each.is_right for each in faults)} "
        f"| {sum(each.before for each in faults)} | {len(alike)} | {sum(bool(each.kinds) for each in alike)} |",
        "",
        "| script | is | found | right | before |",
        "|---|---|---|---|---|",
    ]
    for each in outcomes:
        found = f"not run: {each.absent}" if each.absent else ", ".join(each.kinds) or "nothing"
        right = "" if each.absent else "yes" if each.is_right else "**no**"
        before = "yes" if each.before else ""
        lines.append(f"| {each.script} | {each.expected or 'look-alike'} | {found} | {right} | {before} |")
    return "\n".join(lines) + "\n"


def examine_all(folder: Path, jobs: int = 2, only: str = "") -> list[Outcome]:
    """Examine a folder's scripts, those whose names match, some at a time."""
    scripts = [path for path in folder.glob("[0-9]*.py") if re.search(only, path.name)]
    scripts.sort(key=lambda path: int(path.name.partition("_")[0]))
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(examine, scripts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=CORPUS, help="default: the corpus of this repository"
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="a regular expression on the scripts' names")
    parser.add_argument("--write", type=Path, help="put the table into this document, below its mark")
    chosen = parser.parse_args()
    outcomes = examine_all(chosen.folder, chosen.jobs, chosen.only)
    shown = table(outcomes)
    print(shown)
    if chosen.write:
        mark = "<!-- make failures writes what follows -->\n"
        text = chosen.write.read_text("utf-8")
        chosen.write.write_text(text[: text.index(mark) + len(mark)] + "\n" + shown, "utf-8")
    return 0 if all(each.is_right or each.absent for each in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
