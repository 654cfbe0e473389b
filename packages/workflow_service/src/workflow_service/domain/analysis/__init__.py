"""Reads contracts by rules: the same text always gives the same findings, each with the place that proves it.

Three steps, each a pure function over the text and what the step before found: `segment`, `extract`, `assess`. All
of them accept any text, and their time grows with its length only.

What a language model finds beside them goes the same way: `windows` says what it reads at a time, `believe` keeps
what stands in the text, `merge` joins both.
"""

from workflow_service.domain.analysis.assessment import assess
from workflow_service.domain.analysis.extraction import extract
from workflow_service.domain.analysis.merging import merge
from workflow_service.domain.analysis.model_findings import FINDINGS_SCHEMA, RISK_NAMES, believe
from workflow_service.domain.analysis.segmentation import segment
from workflow_service.domain.analysis.windows import windows

__all__ = (
    "FINDINGS_SCHEMA",
    "RISK_NAMES",
    "assess",
    "believe",
    "extract",
    "merge",
    "segment",
    "windows",
)
