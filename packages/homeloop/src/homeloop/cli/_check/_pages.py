"""A rule at length: for the terminal and as a page of the documentation."""

import textwrap

from homeloop.cli._check._catalogue import RULES, Rule
from homeloop.cli._check._examples_bad import BAD
from homeloop.cli._check._examples_good import GOOD
from homeloop.cli._check._examples_more import MORE

_WIDTH = 96


def explain_rule(code: str) -> str | None:
    """Return what a rule means as text for a terminal; None if there is no such rule."""
    wanted = code.strip().lower()
    rule = next((each for each in RULES if wanted in (each.code.lower(), each.name)), None)
    if rule is None:
        return None
    parts = [
        f"{rule.code}: {rule.title}  ({rule.name})",
        textwrap.fill(rule.why, _WIDTH, break_on_hyphens=False),
        f"Found:\n\n{textwrap.indent(BAD[rule.code].strip(), '    ')}",
        f"Not found:\n\n{textwrap.indent(GOOD[rule.code].strip(), '    ')}",
        f"What to change: {rule.help}",
    ]
    titles = [each.title for each in MORE if each.code == rule.code]
    if titles:
        parts.append(textwrap.fill(f"Found, too: {'; '.join(titles)}.", _WIDTH, break_on_hyphens=False))
    if rule.leads_to:
        parts.append(f"When the program runs, it is seen as {', '.join(rule.leads_to)}.")
    return "\n\n".join(parts) + "\n"


def list_rules() -> str:
    """Return all rules with their titles, one a line."""
    return "".join(f"{rule.code}  {rule.name:<22}{rule.title}\n" for rule in RULES)


def rule_markdown(rule: Rule, printed: str) -> str:
    """Return a rule's page of the documentation, with what is printed for its first example."""
    why = textwrap.fill(rule.why.replace("__", "\\_\\_"), 120, break_on_hyphens=False)
    more = "".join(
        f"\n## Found, too: {each.title}\n\n```python\n{each.bad.strip()}\n```\n\nInstead:\n\n"
        f"```python\n{each.good.strip()}\n```\n"
        for each in MORE
        if each.code == rule.code
    )
    faults = ", ".join(f"[{code}](../errors/{code}.md)" for code in rule.leads_to)
    seen = f"\nWhen the program runs, it is seen as {faults}.\n" if faults else ""
    return (
        f"# {rule.code}: {rule.title}\n\n`{rule.name}`\n\n{why}\n\n"
        f"What to change: {rule.help}.\n{seen}\n"
        f"## Found\n\n```python\n{BAD[rule.code].strip()}\n```\n\n"
        f"## Not found\n\n```python\n{GOOD[rule.code].strip()}\n```\n\n"
        f"## What is printed\n\n```text\n{printed}```\n{more}"
    )
