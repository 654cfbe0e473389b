"""The catalogue of risks: by which words each is known, why it is one, and what to ask for instead.

A rule looks at one sentence: all of its ``signs`` must be there and none of its ``exceptions``. Gaps between words
are bounded, so that no sentence takes long.
"""

import re
from dataclasses import dataclass

from workflow_service.domain.contract import Severity


@dataclass(frozen=True, slots=True)
class Risk:
    """A kind of risk, as a reader is told of it."""

    name: str
    severity: Severity
    why: str
    advice: str


@dataclass(frozen=True, slots=True)
class Rule:
    """The signs by which a risk is known in a sentence; ``subject`` may also stand in the titles above it."""

    risk: Risk
    signs: tuple[re.Pattern[str], ...]
    exceptions: tuple[re.Pattern[str], ...] = ()
    subject: re.Pattern[str] | None = None

    def applies(self, text: str, context: str) -> bool:
        """Tell whether a sentence, under titles ``context``, carries the risk."""
        return (
            all(sign.search(text) for sign in self.signs)
            and not any(exception.search(text) for exception in self.exceptions)
            and (self.subject is None or bool(self.subject.search(text) or self.subject.search(context)))
        )


def _p(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_MUTUAL = _p(r"\b(?:either|each|both|neither|no)\s+(?:of\s+the\s+)?part(?:y|ies)\b|\bthe\s+parties\b|\bmutual")
_NEGATED = _p(r"\bnothing\s+in\s+this\b|\bno\s+provision\s+of\s+this\b")

_FREE_ASSIGNMENT = Risk(
    "free assignment by one side",
    Severity.MEDIUM,
    "The contract can be handed to a stranger, a competitor included, without consent.",
    "Ask that neither side may assign without the other's consent, but to a successor of its business.",
)

RULES: tuple[Rule, ...] = (
    Rule(
        Risk(
            "unlimited liability",
            Severity.HIGH,
            "One claim can cost more than the whole contract is worth: there is no ceiling on what must be paid.",
            "Ask for a cap on liability, for example the fees of twelve months, and one that binds both sides.",
        ),
        signs=(
            _p(
                r"\bliab\w+\b[^.;]{0,80}\b(?:unlimited|(?<!including\s)(?<!including,\s)without\s+limit\w*|not\s+be\s+(?:limited|capped))"
                r"|\bunlimited\s+liab"
            ),
        ),
        exceptions=(_p(r"\bfraud|\bdeath\b|personal\s+injury|cannot\s+be\s+(?:limited|excluded)"), _NEGATED),
    ),
    Rule(
        Risk(
            "liability cap for one side",
            Severity.MEDIUM,
            "Only one side's liability is limited, so the other side bears the loss above that amount.",
            "Ask for the same cap for both sides, and for an amount in proportion to the contract.",
        ),
        signs=(
            _p(
                r"\bliab\w+\b[^.;]{0,160}\b(?:(?:not|never|no\s+event)\s+exceed|be\s+limited\s+to|limited\s+to)\b"
                r"|\bin\s+no\s+event\b[^.;]{0,120}\bliab\w+\b[^.;]{0,120}\bexceed\b"
            ),
            _p(
                r"(?:[’']s?|\band\s+its\s+\w{1,20}[’']?)(?:\s+and\s+its\s+\w{1,20}[’']?)?\s+"
                r"(?:total\s+|aggregate\s+|entire\s+|maximum\s+|cumulative\s+){0,3}liability\b"
                r"|\b(?:total|aggregate|entire|maximum|cumulative)\s+liability\s+of\s+\w"
            ),
        ),
        exceptions=(_MUTUAL,),
    ),
    Rule(
        Risk(
            "exclusion of liability",
            Severity.MEDIUM,
            "One side answers for no damage, or for hardly any; the other side bears it.",
            "Ask that it answers for direct damage up to a cap, and for intent and gross negligence without one.",
        ),
        signs=(
            _p(
                r"\b(?:not\s+be|no\s+event\b[^.;]{0,100}\bbe|not\s+be\s+held)\s+(?:liable|responsible)\b"
                r"|\b(?:shall|will)\s+have\s+no\s+liability\b"
                r"|\bno\s+(?!part(?:y|ies)\b)[^.;]{1,60}\b(?:shall|will)\s+have\s+any\s+liability\b"
            ),
            _p(r"\bdamages?\b|\bloss(?:es)?\b|\bclaims?\b"),
        ),
        exceptions=(_MUTUAL, _NEGATED),
    ),
    Rule(
        Risk(
            "automatic renewal",
            Severity.MEDIUM,
            "The contract goes on by itself; who misses the notice date is bound for another term.",
            "Ask for renewal only by written agreement, or for a reminder and a notice period of at most 30 days.",
        ),
        signs=(_p(r"\bautomatic(?:ally)?\b"), _p(r"\b(?:renew|extend)")),
        exceptions=(_p(r"\bnot\s+(?:be\s+)?(?:automatically|renew)\w*\s+(?:renew|extend)|\bno\s+automatic"),),
    ),
    Rule(
        Risk(
            "unilateral change",
            Severity.HIGH,
            "One side can change what was agreed, prices included, without the other side's consent.",
            "Ask that changes need a document signed by both sides, or for a right to leave when terms change.",
        ),
        signs=(
            _p(r"\bmay\b[^.;]{0,60}\b(?:amend|modify|change|vary|revise|increase|adjust)\b"),
            _p(
                r"\bsole\s+(?:and\s+absolute\s+)?discretion\b|\bwithout\s+(?:prior\s+)?(?:notice|consent)\b"
                r"|\bat\s+any\s+time\b|\bfrom\s+time\s+to\s+time\b|\bunilateral"
            ),
        ),
        exceptions=(_MUTUAL, _p(r"\bsigned\s+by\b|\bwritten\s+agreement\b|\bmay\s+not\b")),
    ),
    Rule(
        Risk(
            "broad assignment of intellectual property",
            Severity.HIGH,
            "All rights go over to the other side, beyond what is made for it under this contract.",
            "Limit the assignment to results that are paid for, keep what existed before, or grant a licence.",
        ),
        signs=(
            _p(r"\bassigns?\b(?!\s+this\b)|\bassignment\s+of\b"),
            _p(
                r"\b(?:all|any\s+and\s+all|entire)\s+(?:of\s+\w+\s+)?(?:right|title|interest|intellectual\s+property)"
            ),
        ),
        exceptions=(_NEGATED, _p(r"\b(?:not|may)\s+assign\b")),
    ),
    Rule(
        Risk(
            "perpetual confidentiality",
            Severity.MEDIUM,
            "The duty of confidence never ends, so it must be watched over for ever.",
            "Ask for an end, usually three to five years after disclosure, and longer for trade secrets only.",
        ),
        signs=(
            _p(
                r"\bperpetu(?:ity|al|ally)\b|\bindefinite(?:ly)?\b|\bforever\b|\bwithout\s+limit\s+(?:in|of)\s+time\b"
            ),
        ),
        exceptions=(_p(r"\blicen[cs]e|\bnot\s+(?:be\s+)?(?:perpetual|indefinite)"),),
        subject=_p(r"confiden|non-disclosure|\bsecre"),
    ),
    Rule(
        Risk(
            "non-compete",
            Severity.HIGH,
            "It forbids business of one's own with others; in some places such a clause is not even valid.",
            "Ask to strike it, or limit it to named competitors, one market and at most twelve months.",
        ),
        signs=(
            _p(r"\b(?:shall|must|will|may|agrees?|undertakes?)\s+not\b|\brefrain\b|\bneither\b"),
            _p(r"\bcompet(?:es?|ing|ition|itors?)\b|\bcompetitive\s+(?:business|with|product|activit)"),
        ),
        exceptions=(_NEGATED,),
    ),
    Rule(
        Risk(
            "non-solicitation",
            Severity.LOW,
            "It forbids hiring or approaching the other side's people or customers for a time.",
            "Exclude public job advertisements and applications on a person's own account.",
        ),
        signs=(_p(r"\bsolicit\b"), _p(r"\b(?:shall|must|will|may)\s+not\b|\bneither\b|\brefrain\b")),
        exceptions=(_NEGATED,),
    ),
    Rule(
        Risk(
            "termination at will by one side",
            Severity.MEDIUM,
            "One side can leave at any time while the other is bound for the whole term.",
            "Ask for the same right with the same notice, at least 30 days, and for payment of work done.",
        ),
        signs=(
            _p(r"\bmay\b[^.;]{0,30}\bterminate\b"),
            _p(r"\bat\s+any\s+time\b|\bwithout\s+cause\b|\bfor\s+(?:its\s+)?convenience\b|\bimmediately\b"),
        ),
        exceptions=(_MUTUAL, _p(r"\bbreach|\binsolven|\bbankrupt|\bmay\s+not\b|\bif\s*:")),
    ),
    Rule(
        Risk(
            "liquidated damages",
            Severity.MEDIUM,
            "A fixed sum is due for a breach, whether or not there is a loss of that size.",
            "Ask to strike it, to cap the total, and to count it against any further damages.",
        ),
        signs=(_p(r"\bliquidated\s+damages\b|\bcontractual\s+penalt|\bpenalty\s+of\b"),),
        exceptions=(_p(r"\bno\s+liquidated\s+damages\b"), _NEGATED),
    ),
    Rule(
        Risk(
            "high interest on late payment",
            Severity.MEDIUM,
            "Interest by the month adds up: 2% per month is more than 26% per year.",
            "Ask for the statutory rate, or for one by the year.",
        ),
        signs=(
            _p(r"\binterest\b"),
            _p(r"(?:\b(?:[2-9]|1\.[5-9]\d?|[1-9]\d)(?:\.\d{1,2})?)\s?%\s+(?:per|a|each)\s+month\b"),
        ),
    ),
    Rule(
        Risk(
            "no warranty",
            Severity.MEDIUM,
            "Nothing is promised about what is delivered; defects are at the buyer's risk.",
            "Ask for a warranty that it meets its description for at least 90 days.",
        ),
        signs=(
            _p(
                r"[“\"‘']as[\s-]is\b|\bon\s+an?\s+as[\s-]is\b|\bdisclaims?\s+(?:any\s+and\s+)?(?:all|any)\b[^.;]{0,40}warrant"
            ),
        ),
    ),
    Rule(
        Risk(
            "exclusivity",
            Severity.MEDIUM,
            "It forbids buying the same from anyone else, so there is no choice when price or quality slip.",
            "Ask to strike it, or tie it to service levels and a fixed, short time.",
        ),
        signs=(
            _p(
                r"\b(?:shall|must|will|may)\s+not\s+(?:purchase|procure|obtain|buy|engage)\b[^.;]{0,120}"
                r"\b(?:third\s+part|other\s+(?:provider|supplier|vendor|person)|anyone\s+else)"
                r"|\b(?:shall|must|will|may)\s+not\s+use\b[^.;]{0,60}\bother\s+(?:provider|supplier|vendor)"
                r"|\b(?:sole\s+and\s+)?exclusive\s+(?:provider|supplier|vendor)\b"
            ),
        ),
        exceptions=(_p(r"\bnon-exclusive\b"), _NEGATED),
    ),
    Rule(
        _FREE_ASSIGNMENT,
        signs=(_p(r"\bmay\b[^.;]{0,20}\bassign\b[^.;]{0,40}\bthis\s+(?:agreement|contract|license|licence)\b"),),
        exceptions=(_MUTUAL, _p(r"\bmay\s+not\b|\bconsent\b|\bpermission\b|\bapproval\b|\bonly\b")),
    ),
    Rule(
        _FREE_ASSIGNMENT,
        signs=(_p(r"\bmay\b[^.;]{0,20}\bassign\b"), _p(r"\bwithout\b[^.;]{0,60}\bconsent\b")),
        exceptions=(_MUTUAL, _p(r"\bmay\s+not\b")),
    ),
    Rule(
        Risk(
            "waiver of a jury or class action",
            Severity.LOW,
            "A right in court is given up before there is a dispute.",
            "Ask whether both sides need the waiver, and whether the law allows it.",
        ),
        signs=(_p(r"\bwaives?\b[^.;]{0,60}\b(?:jury|class[\s-]action)"),),
    ),
)

INDEMNITY_RISK = Risk(
    "one-sided indemnity",
    Severity.HIGH,
    "One side must pay for the other's losses and claims, and gets no such promise in return.",
    "Ask for a mutual indemnity, limited to third-party claims caused by the fault of who gives it.",
)

INDEMNITY = re.compile(
    r"(?:(?P<mutual>\b(?:[Ee]ach|[Bb]oth|[Ee]ither)\s+[Pp]art(?:y|ies)\b|\b[Tt]he\s+[Pp]arties\b)"
    r"|(?P<who>\b[A-Z][\w&]{0,40}(?:\s+[A-Z]\w{0,40}){0,2}))\s+"
    r"(?:shall|will|must|agrees?\s+to|undertakes?\s+to|hereby)\s+"
    r"(?:fully\s+|at\s+its\s+own\s+(?:cost|expense),?\s+|defend,?\s+(?:and\s+)?|hold\s+harmless,?\s+(?:and\s+)?){0,3}"
    r"indemnif(?:y|ies)\b"
)
"""An indemnity and who gives it, without the article: «the Supplier» and «Supplier» are one."""
