"""A module that notes in which process it was imported."""

import os

imported_in = os.getpid()
