"""What tests give a run in place of its report: it keeps the steps, and dies at one as a killed worker does."""


class WorkerDiedError(BaseException):
    """What no handler of ordinary errors catches."""


class Steps:
    """Writes down the steps it is told; at the step `die_at` it dies."""

    def __init__(self, die_at: str | None = None) -> None:
        self.told: list[tuple[str, int, str]] = []
        self.die_at = die_at

    async def __call__(self, step: str, percent: int, description: str) -> None:
        if step == self.die_at:
            raise WorkerDiedError
        self.told.append((step, percent, description))

    @property
    def names(self) -> list[str]:
        """The steps, in the order in which they were told."""
        return [step for step, _, _ in self.told]
