"""A module to preload that seeds the generators of random numbers, and has one of its own."""

import random

random.seed(7)
own = random.Random(7)


async def draw() -> tuple[float, float]:
    """Draw from the shared generator, and from the module's own."""
    return random.random(), own.random()
