"""What adapters are tested with, ours and yours: the conformance kit of guarded resources."""

from homeloop.testing._conformance import CHECKS, Part, Subject, check_all

__all__ = ("CHECKS", "Part", "Subject", "check_all")
