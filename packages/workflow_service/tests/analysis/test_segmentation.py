"""Which lines begin a clause, in the styles that contracts use, and which only look as if they did."""

from workflow_service.domain.analysis import segment
from workflow_service.domain.contract import Clause
from workflow_service.domain.document import Page, Span


def clauses(text: str) -> dict[str, Clause]:
    return {clause.id: clause for clause in segment(text, [])}


def titles(text: str) -> dict[str, str]:
    return {clause.id: clause.title for clause in segment(text, [])}


def test_decimal_numbers_make_a_tree() -> None:
    """1., 1.1 and 1.1.1 are levels, each under the one before."""
    found = clauses("1. Term\nThe text.\n1.1 Initial Term. It lasts.\n1.1.1 The start is now.\n2) Fees\n")
    assert [(c.id, c.title, c.level, c.parent) for c in found.values()] == [
        ("1", "Term", 1, None),
        ("1.1", "Initial Term", 2, "1"),
        ("1.1.1", "", 3, "1.1"),
        ("2", "Fees", 1, None),
    ]


def test_lists_stand_under_their_clause() -> None:
    """(a) and (i) below it are found, and a list goes on after a list within it."""
    text = "3.1 The Supplier shall:\n(a) build;\n(b) test:\n(i) early;\n(ii) often; and\n(c) deliver.\n"
    found = clauses(text)
    assert list(found) == ["3.1", "3.1(a)", "3.1(b)", "3.1(b)(i)", "3.1(b)(ii)", "3.1(c)"]
    assert found["3.1(b)(ii)"].parent == "3.1(b)"
    assert text[found["3.1(c)"].body.start : found["3.1(c)"].body.end] == "deliver.\n"


def test_i_after_h_is_a_letter() -> None:
    """(i) goes on with the letters where they have come to h, and begins roman numerals elsewhere."""
    text = "1. List\n" + "".join(f"({letter}) item {letter};\n" for letter in "abcdefghij")
    assert list(clauses(text))[-2:] == ["1(i)", "1(j)"]


def test_articles_and_sections() -> None:
    """«Article IV» is over its sections, with its title behind it or on the next line."""
    found = clauses("ARTICLE IV\nTERM\n\nSection 4.1 Start. Now.\n\nSection 2. End. Then.\n\nArticle V - Fees\n")
    assert [(c.number, c.title, c.level) for c in found.values()] == [
        ("Article IV", "TERM", 1),
        ("Section 4.1", "Start", 2),
        ("Section 2", "End", 2),
        ("Article V", "Fees", 1),
    ]


def test_markdown_headings_with_and_without_numbers() -> None:
    """Marks give the level of a heading unless it has a number of its own."""
    found = clauses(
        "# Agreement\n\nText.\n\n## 3. Term of this agreement\n\nText.\n\n### Notes and more\n\nText.\n"
    )
    assert [(c.number, c.title, c.level) for c in found.values()] == [
        ("", "Agreement", 1),
        ("3", "Term of this agreement", 1),
        ("", "Notes and more", 3),
    ]


def test_capitals_are_headings_but_passages_in_capitals_are_not() -> None:
    """One line in capitals is a heading; a disclaimer over several lines, or one with a full stop, is text."""
    text = "The text ends.\n\nGOVERNING LAW\n\nDelaware.\n\nTHE SERVICES COME WITHOUT\nANY WARRANTY WHATSOEVER\n"
    assert list(clauses(text)) == ["preamble", "GOVERNING LAW"]


def test_what_stands_before_the_first_number_is_the_preamble() -> None:
    """The title of the contract is the preamble's."""
    found = clauses("SERVICES AGREEMENT\n\nThis agreement is made.\n\n1. Scope\nAll.\n")
    assert [(c.id, c.title) for c in found.values()] == [("preamble", "SERVICES AGREEMENT"), ("1", "Scope")]


def test_references_and_amounts_at_the_beginning_of_a_line_are_no_clauses() -> None:
    """What a line break brings to the beginning of a line stays in its sentence."""
    text = (
        "1. Payment. The fee under Section\n2.1 is due within\n30 days of the invoice, or of\nSection 4 or (a)"
        " or\n(b) as the case may be, in an amount of USD\n1.5 million.\n"
    )
    assert list(clauses(text)) == ["1"]


def test_a_number_used_twice_gives_two_ids() -> None:
    """Ids are unique where numbers are not: annexes begin with 1 again."""
    assert list(clauses("1. First\nText.\n1. Again\nText.\n")) == ["1", "1~2"]


def test_a_clause_is_on_the_page_where_it_begins() -> None:
    """The pages of the document decide."""
    text = "1. First\nText.\n2. Second\nText.\n"
    at = text.index("2.")
    pages = [Page(1, Span(0, at - 1)), Page(2, Span(at, len(text)))]
    assert [clause.page for clause in segment(text, pages)] == [1, 2]


def test_no_text_has_no_clause() -> None:
    """An empty text is not an empty preamble."""
    assert segment("", []) == ()
