"""
Random steps on homeloop's runtimes, in a process of its own: ``python any_order --help``.

Prints the number of steps. Ends with 0 if all was well, else with the steps that failed on stderr.
"""

import argparse
import gc
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import AnyOrder
from watch import Journal
from world import Process

STEPS = 50  # in an example


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(prog="any_order", description=__doc__)
    parser.add_argument("--examples", type=int, default=50, help=f"how many with one seed, of {STEPS} steps each")
    parser.add_argument("--seed", type=int, help="where the random numbers begin; random itself by default")
    parser.add_argument("--seconds", type=float, default=0.0, help="go on with other seeds for so long")
    parser.add_argument("--shrink", action="store_true", help="look for fewer steps that fail; takes minutes")
    parser.add_argument("--journal", type=Path, help="where the steps of the present example are written")
    options = parser.parse_args()
    journal = options.journal or Path(tempfile.gettempdir(), f"any_order_{time.time():.0f}.txt")

    # Python 3.12 warns of every fork beside a thread; forking beside one is what is tried.
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*", category=DeprecationWarning)
    sys.setswitchinterval(1e-5)  # seconds: threads meet more often
    gc.collect()
    gc.freeze()  # what is there by now need not be looked at again and again
    with journal.open("w+") as file:
        AnyOrder.process = Process(Journal(file))
        number = random.randrange(2**32) if options.seed is None else options.seed
        end = time.monotonic() + options.seconds
        while True:
            print(f"seed {number}, journal {journal}", flush=True)
            run(number, options.examples, options.shrink)
            print(f"{AnyOrder.process.journal.steps} steps", flush=True)
            if time.monotonic() >= end:
                break
            number = random.randrange(2**32)
    journal.unlink()


def run(number: int, examples: int, shrink: bool) -> None:
    """Run so many examples; raise what fails."""
    run_state_machine_as_test(
        seed(number)(AnyOrder),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
        ),
    )


if __name__ == "__main__":
    main()
