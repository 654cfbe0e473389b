"""What a code means, at length: for the terminal and as a page of the documentation."""

import textwrap

from homeloop.diagnosis._codes import BY_CODE, CODES, Code
from homeloop.diagnosis._examples import EXAMPLES

_WIDTH = 96


def explain(code: str) -> str:
    """
    Return what a code means as text for a terminal.

    Raises:
        LookupError: There is no such code; the message lists those that begin alike.
    """
    page = _find(code)
    bad, good = EXAMPLES[page.kind]
    parts = [
        f"{page.code}: {page.title}  ({page.kind.value})",
        _wrapped(page.meaning),
        _wrapped(f"Why the message misleads: {page.misleads}."),
        f"Goes wrong:\n\n{textwrap.indent(bad, '    ')}",
        f"Works:\n\n{textwrap.indent(good, '    ')}",
        "What to change:\n\n" + "\n".join(_item(remedy) for remedy in page.remedy),
    ]
    return "\n\n".join(parts) + "\n"


def explain_all() -> str:
    """Return all codes with their titles, one a line."""
    return "".join(f"{page.code}  {page.title}\n" for page in CODES)


def markdown(code: Code, render: str = "") -> str:
    """Return a code's page of the documentation, with an example of what is printed if there is one."""
    bad, good = EXAMPLES[code.kind]
    shown = f"\n## What is printed\n\n```text\n{render}```\n" if render else ""
    remedy = "\n".join(f"- {_marked(each)}" for each in code.remedy)
    misleads = _wrapped(_marked(f"{code.misleads[0].upper()}{code.misleads[1:]}."), 120)
    return (
        f"# {code.code}: {code.title}\n\n`{code.kind.value}`\n\n{_wrapped(_marked(code.meaning), 120)}\n\n"
        f"## Goes wrong\n\n```python\n{bad}\n```\n\n## Works\n\n```python\n{good}\n```\n\n"
        f"## What to change\n\n{remedy}\n\n"
        f"## Why the message misleads\n\n{misleads}\n{shown}"
    )


def _find(code: str) -> Code:
    wanted = code.strip().upper()
    for page in CODES:
        if wanted in (page.code, page.kind.value.upper()):
            return page
    alike = [page.code for page in CODES if page.code.startswith(wanted[:5])] or list(BY_CODE)
    raise LookupError(f"there is no code {code!r}; there are {', '.join(alike)}")


def _wrapped(text: str, width: int = _WIDTH) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _marked(text: str) -> str:
    """Keep dunder names from being read as bold type."""
    return text.replace("__", "\\_\\_")


def _item(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="  - ", subsequent_indent="    ", break_long_words=False)
