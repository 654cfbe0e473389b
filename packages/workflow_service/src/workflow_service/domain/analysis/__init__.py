"""Reads contracts by rules: the same text always gives the same findings, each with the place that proves it.

Three steps, each a pure function over the text and what the step before found: `segment`, `extract`, `assess`. All
of them accept any text, and their time grows with its length only.
"""

from workflow_service.domain.analysis.assessment import assess
from workflow_service.domain.analysis.extraction import extract
from workflow_service.domain.analysis.segmentation import segment

__all__ = ("assess", "extract", "segment")
