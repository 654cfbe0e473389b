"""
Kill every part of the service in the middle of many runs, with every broker, and write down what became of them.

    fault_matrix.py --write docs/reference/fault-matrix.md
"""

import argparse
import signal
import sys
from datetime import date
from pathlib import Path

import fault_campaign
import fault_servers
from fault_campaign import Outcome

HEAD = """# The fault matrix

Written by `make fault-matrix` on {date}, not by hand. In each line runs of a workflow of five steps, on
two workers with eight threads each; at a quarter, half and three quarters of them `kill -9` of the part named (of
workers: both), which is started again a second later. The runs take the tiers none, context and thread in turn.
All servers are the harness's own. Redis keeps nothing on disk, so it loses its messages; the filesystem broker has
no process: what is lost there is every message that waits.

A line is right when every run has succeeded and has exactly one final event, when event numbers have no gaps and
percent never falls, in the database and on five event streams that reconnect, and when each step's effect is
there once. *In work*: how many runs workers held at the moments of the kills. *Claimed again*: attempts beyond the
one that a run needs. *Steps redone*: steps that were executed again because the worker was lost between their
effect and their checkpoint; steps run at least once, so their effects are to be idempotent.

"""
COLUMNS = (
    *("broker", "killed", "runs", "in work", "succeeded", "ended exactly once", "gaps", "backwards"),
    *("claimed again", "steps redone", "seconds", ""),
)


def main() -> int:
    """Run the matrix; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--brokers", nargs="+", default=list(fault_servers.BROKERS))
    parser.add_argument("--victims", nargs="+", default=list(fault_campaign.VICTIMS))
    parser.add_argument("--write", type=Path, help="the file for the table")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped on the way out
    rows, is_right = _kept(options.write), True
    for broker in options.brokers:
        reason = fault_servers.absence(broker)
        for victim in options.victims:
            if reason is not None:
                row = _row(broker, victim, f"not run: {reason}", *[""] * (len(COLUMNS) - 3))
            else:
                outcome = fault_campaign.campaign(broker, [victim] * 3, options.runs, workers=2)
                complaints = outcome.complaints()
                is_right = is_right and not complaints
                row = _line(outcome, victim, complaints)
            print(row, flush=True)
            rows[broker, victim] = row
            if options.write is not None:
                _write(options.write, rows)
    return 0 if is_right else 1


def _kept(file: Path | None) -> dict[tuple[str, str], str]:
    """Return the lines that stand in the file, by broker and victim: those that are not run again stay."""
    text = file.read_text() if file is not None and file.exists() else ""
    split = {
        line: [cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")
    }
    return {(cells[1], cells[2]): line for line, cells in split.items() if cells[1] in fault_servers.BROKERS}


def _write(file: Path, rows: dict[tuple[str, str], str]) -> None:
    order = [(broker, victim) for broker in fault_servers.BROKERS for victim in fault_campaign.VICTIMS]
    table = [_row(*COLUMNS), _row(*["---"] * len(COLUMNS)), *(rows[key] for key in order if key in rows)]
    file.write_text(HEAD.format(date=date.today().isoformat()) + "\n".join(table) + "\n")


def _line(outcome: Outcome, victim: str, complaints: list[str]) -> str:
    counts = outcome.counts
    return _row(
        outcome.broker,
        victim,
        counts["runs"],
        ", ".join(map(str, outcome.held_at_kills)),
        counts["succeeded"],
        counts["ended_once"],
        counts["gaps"],
        counts["backwards"],
        counts["extra_attempts"],
        counts["executions"] - counts["effects"],
        round(outcome.seconds),
        "; ".join(complaints) or "right",
    )


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
