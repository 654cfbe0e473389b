"""What the steps share: the runtimes, the calls that have not ended, and a look at everything after each step."""

import gc
import itertools
from collections.abc import Sequence
from typing import ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant
from loops import KINDS
from model import CallModel, Options, RuntimeModel, TalkModel
from watch import Journal, Leaks, Noise
from ways import Clients, Foreign

T = TypeVar("T")

SLOT = st.integers(0, 2)
PICK = st.integers(0, 7)
OPTIONS = st.builds(
    Options,
    kind=st.sampled_from(KINDS),
    debug=st.booleans(),
    long_grace=st.booleans(),
    limit=st.sampled_from((None, None, None, 1, 2, 3)),
    when_full=st.sampled_from(("wait", "refuse")),
    propagate=st.booleans(),
)


class Process:
    """What stays for the life of the process."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.noise = Noise()
        self.numbers = itertools.count(1)
        self.clients = Clients()
        self.foreign = tuple(Foreign(kind) for kind in KINDS)


class World(RuleBasedStateMachine):
    """
    Three runtimes, the calls and the conversations on them.

    What is drawn for the next step must not depend on what the threads made of the last one: so there are
    no preconditions, and a step that finds nothing to do passes.
    """

    process: ClassVar[Process]

    def __init__(self) -> None:
        super().__init__()
        self.journal, self.noise = self.process.journal, self.process.noise
        self.clients, self.foreign = self.process.clients, self.process.foreign
        self.journal.begin()
        self.leaks = Leaks()
        self.noise.forget()
        gc.disable()  # nothing may need it
        self.models: list[RuntimeModel] = []
        self.calls: list[CallModel] = []
        self.talks: list[TalkModel] = []
        self.former: list[RuntimeModel] = []
        self.sound = True

    @initialize(options=st.tuples(OPTIONS, OPTIONS, OPTIONS))
    def open_all(self, options: tuple[Options, ...]) -> None:
        """Begin with three runtimes."""
        self.models = [RuntimeModel(self.name("r"), each) for each in options]
        self.step(f"open {self.models}")

    def step(self, text: str) -> None:
        """Begin a step. It is sound only when everything was looked at after it."""
        self.sound = False
        self.journal.step(text)

    def name(self, letter: str) -> str:
        """Return a name that nobody has had in this process, whatever an earlier example may have left."""
        return f"{letter}{next(self.process.numbers)}"

    @staticmethod
    def pick(things: Sequence[T], number: int) -> T | None:
        """Choose one of some things, if there are any."""
        return things[number % len(things)] if things else None

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        """Statistics, events and promises agree with the model, and nobody has complained."""
        for model in self.models:
            model.check()
        for model in (*self.models, *self.former):
            self.noise.check(model)
        self.calls = [call for call in self.calls if call in call.model.running or call in call.model.waiting]
        self.noise.check_silence(self.leaks.is_anything_lost)
        self.sound = True
