"""All steps, in any order, and what is left behind after them."""

import gc
import sys

from crowds import Crowds
from storms import Storms


class AnyOrder(Crowds, Storms):
    """Everything at once."""

    def teardown(self) -> None:
        """Close what is open. Nothing may be left, unless a step has failed and something must be."""
        try:
            if self.sound:
                self.sound = False
                self._end_well()
            else:
                self.journal.tell(sys.exception())
                self._end_anyhow()
        except AssertionError as error:
            self.journal.tell(error)
            raise
        finally:
            gc.enable()
            self.journal.disarm()
            self.models, self.calls, self.talks, self.former = [], [], [], []

    def _end_well(self) -> None:
        for model in self.models:
            self.close_now(model, False, "main")
            self.everything_is_as_it_should_be()
        self.journal.note("look at what is left")
        self.calls, self.talks, self.models, self.former = [], [], [], []
        for loop in self.foreign:
            loop.settle()
        self.leaks.check()
        self.noise.check_silence(self.leaks.is_anything_lost)

    def _end_anyhow(self) -> None:
        for call in self.calls:
            call.act.relent()
        for model in self.models:
            model.runtime.close(1.0)
