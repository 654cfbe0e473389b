"""Why an exception is the consequence of an event loop fault, and what to change."""

from homeloop._provenance import LoopFact, Place
from homeloop.diagnosis._codes import CODES, Code, Kind
from homeloop.diagnosis._diagnosis import Diagnosis, detect_cross_loop_issue, diagnose, from_fault
from homeloop.diagnosis._finalizing import finalizing
from homeloop.diagnosis._pages import explain, explain_all, markdown

__all__ = (
    "CODES",
    "Code",
    "Diagnosis",
    "Kind",
    "LoopFact",
    "Place",
    "detect_cross_loop_issue",
    "diagnose",
    "explain",
    "explain_all",
    "finalizing",
    "from_fault",
    "markdown",
)
