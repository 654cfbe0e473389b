"""Cuts a contract into its clauses, by the numbers and headings at the beginning of lines."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workflow_service.domain.analysis.lists import OpenLists
from workflow_service.domain.contract import Clause
from workflow_service.domain.document import Page, Span

# Headings are short: what stands behind this many characters of a line cannot make it one. It bounds the work on
# texts that are one endless line.
_HEAD = 240
_LONGEST_TITLE = 100
_MOST_WORDS = 12
_MOST_WORDS_RUN_IN = 6

_MARKDOWN = re.compile(r"[ \t]{0,3}(#{1,6})[ \t]+(?=\S)")
_NAMED = re.compile(
    r"[ \t]{0,40}[*_]{0,3}(?P<word>ARTICLE|Article|SECTION|Section|CLAUSE|Clause|§)[ \t]{0,4}"
    r"(?P<number>[IVXLC]{1,7}|\d{1,3}(?:\.\d{1,3}){0,4})(?P<end>[.:)]?[*_]{0,3}[ \t]*[-–—]?[ \t]*)(?=\s|$|\S)"
)
_NUMBER = re.compile(
    r"[ \t]{0,40}[*_]{0,3}(?P<number>\d{1,3}(?:\.\d{1,3}){0,4})(?P<dot>[.)]?)[*_]{0,3}[ \t]+(?=\S)"
)
_ITEM = re.compile(r"[ \t]{0,40}\(?(?P<label>[a-z]{1,4}|[A-Z]|\d{1,2})\)[ \t]+(?=\S)")
_RUN_IN_TITLE = re.compile(r"[*_]{0,3}(?P<title>[^.:|]{2,80})(?:[.:][*_]{0,3}|[*_]{1,3}[.:])(?:\s+|$)")
_SENTENCE_WORDS = re.compile(
    r"\b(?:shall|must|may|will|is|are|was|means?|has|have|hereby|agrees?|does|do|can|includes?|if)\b",
    re.IGNORECASE,
)
_SMALL_WORDS = frozenset(
    {"a", "an", "and", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "upon", "with", "without"}
)
_OPENERS = frozenset("\"“‘'([*_")
_LINE_ENDS_A_SENTENCE = re.compile(r"(?:[.;:!?)\]”\"’*|]|[;,]\s*(?:and|or))\s*$")
_LINE_ENDS_AN_ITEM = re.compile(r"(?:[.;:,!?)\]”\"’*|]|\b(?:and|or))\s*$")


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    end: int  # behind its line end
    head: str  # its first characters, without white space at the end
    tail: str  # its last characters

    @property
    def is_blank(self) -> bool:
        return not self.head.strip() and not self.tail.strip()


@dataclass(frozen=True, slots=True)
class _Mark:
    """A line that begins a clause. ``body`` is where the text behind number and title begins."""

    start: int
    body: int
    number: str
    title: str
    level: int
    is_item: bool = False
    is_title_only: bool = False


def segment(text: str, pages: Sequence[Page]) -> tuple[Clause, ...]:
    """Return the clauses of ``text``: together they are the whole of it, in order, without a gap.

    What stands before the first number is a clause with the id ``preamble``.
    """
    if not text:
        return ()
    marks = list(_with_preamble(text, _Marker(text).marks()))
    ends = [mark.start for mark in marks[1:]] + [len(text)]
    naming = _Naming()
    clauses: list[Clause] = []
    for mark, end in zip(marks, ends, strict=True):
        clause_id, parent = naming.place(mark)
        page = page_at(pages, mark.start)
        body = Span(min(mark.body, end), end)
        clauses.append(
            Clause(clause_id, mark.number, mark.title, mark.level, parent, page, Span(mark.start, end), body)
        )
    return tuple(clauses)


def page_at(pages: Sequence[Page], position: int) -> int:
    """Return the number of the page that holds a character; 1 where no page is known."""
    index = bisect_right(pages, position, key=lambda page: page.span.start) - 1
    return pages[index].number if index >= 0 else 1


def _with_preamble(text: str, marks: Iterator[_Mark]) -> Iterator[_Mark]:
    """Yield the marks, the first of them at the beginning of the text and called the preamble if unnumbered."""
    first = next(marks, None)
    if first is None or text[: first.start].strip():
        yield _Mark(0, 0, "", "", 1)
        if first is not None:
            yield first
    else:
        yield _Mark(0, first.body, first.number, first.title, first.level, first.is_item)
    yield from marks


class _Marker:
    """Walks over the lines of one text and tells which of them begin a clause."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lists = OpenLists()
        self._has_articles = False
        self._level = 1
        self._title_line = -1  # where a line begins that is the title of the number before it

    def marks(self) -> Iterator[_Mark]:
        """Yield the marks, in order."""
        lines = _lines(self._text)
        previous: _Line | None = None
        last: _Mark | None = None  # set while the line before was nothing but a heading
        line = next(lines, None)
        while line is not None:
            following = next(lines, None)
            is_done = line.is_blank or line.start == self._title_line
            mark = None if is_done else self._mark(line, previous, following, last)
            if mark is not None:
                yield mark
            if not is_done:
                last = mark if mark is not None and mark.is_title_only else None
            previous, line = line, following

    def _mark(
        self, line: _Line, previous: _Line | None, following: _Line | None, last: _Mark | None
    ) -> _Mark | None:
        after_gap = previous is None or previous.is_blank or last is not None
        ends_sentence = after_gap or (previous is not None and bool(_LINE_ENDS_A_SENTENCE.search(previous.tail)))
        markdown = _MARKDOWN.match(line.head)
        if markdown:
            return self._headed(line, following, markdown)
        if ends_sentence:
            found = self._named(line, following) or self._numbered(line, following) or self._caps(line, following)
            if found:
                return found
        if ends_sentence or (previous is not None and _LINE_ENDS_AN_ITEM.search(previous.tail)):
            return self._item(line)
        return None

    def _headed(self, line: _Line, following: _Line | None, markdown: re.Match[str]) -> _Mark:
        at = markdown.end()
        found = self._named(line, following, at) or self._numbered(line, following, at)
        if found:
            return _Mark(line.start, line.end, found.number, self._rest(line, found, at), found.level, False, True)
        self._lists.close()
        self._level = len(markdown[1])
        return _Mark(line.start, line.end, "", _clean_title(line.head[at:]), self._level, False, True)

    def _rest(self, line: _Line, found: _Mark, at: int) -> str:
        """Return the title of a Markdown heading whose number has been found: all of the line behind it."""
        match = _NAMED.match(line.head, at) or _NUMBER.match(line.head, at)
        return _clean_title(line.head[match.end() :]) if match else found.title

    def _named(self, line: _Line, following: _Line | None, at: int = 0) -> _Mark | None:
        match = _NAMED.match(line.head, at)
        if match is None:
            return None
        rest = line.head[match.end() :]
        is_reference = rest and not match["end"].strip() and not _may_begin(rest)
        if is_reference:
            return None
        word = match["word"].capitalize()
        components = match["number"].count(".") + 1
        is_article = word == "Article"
        self._has_articles |= is_article
        level = 1 if is_article else components + (self._has_articles and components == 1)
        if not rest and following is not None and _is_caps(following.head.strip()):
            self._lists.close()
            self._level = level
            self._title_line = following.start
            title = _clean_title(following.head)
            return _Mark(line.start, following.end, f"{word} {match['number']}", title, level, False, True)
        return self._heading(line, following, match.end(), f"{word} {match['number']}", level)

    def _numbered(self, line: _Line, following: _Line | None, at: int = 0) -> _Mark | None:
        match = _NUMBER.match(line.head, at)
        if match is None or not _may_begin(line.head[match.end() :]):
            return None
        components = match["number"].count(".") + 1
        if components == 1 and not match["dot"] and not at:
            return None  # «30 days» at the beginning of a line is no clause
        return self._heading(line, following, match.end(), match["number"], components)

    def _heading(self, line: _Line, following: _Line | None, at: int, number: str, level: int) -> _Mark:
        self._lists.close()
        self._level = level
        title, body = _title(line, following, at)
        return _Mark(line.start, body, number, title, level, False, body == line.end)

    def _caps(self, line: _Line, following: _Line | None) -> _Mark | None:
        words = line.head.strip()
        if not _is_caps(words) or (following is not None and _is_caps(following.head.strip())):
            return None  # two such lines are a passage in capitals, as disclaimers are
        self._lists.close()
        self._level = 1
        return _Mark(line.start, line.end, "", _clean_title(words), 1, False, True)

    def _item(self, line: _Line) -> _Mark | None:
        match = _ITEM.match(line.head)
        path = self._lists.place(match["label"]) if match else None
        if match is None or path is None:
            return None
        number = "".join(f"({label})" for label in path)
        return _Mark(line.start, line.start + match.end(), number, "", self._level + len(path), is_item=True)


class _Naming:
    """Gives clauses their ids and parents."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._open: list[tuple[int, str]] = []  # level and id of the clauses around the next one
        self._base = ""  # id of the clause whose lists are open

    def place(self, mark: _Mark) -> tuple[str, str | None]:
        """Return the id of the next clause and that of the clause it stands under."""
        is_first = not self._seen
        name = mark.number or ("preamble" if is_first else mark.title)
        clause_id = self._unique(f"{self._base}{name}" if mark.is_item else name)
        if not mark.is_item:
            self._base = clause_id
        while self._open and self._open[-1][0] >= mark.level:
            self._open.pop()
        parent = self._open[-1][1] if self._open else None
        if not (is_first and not mark.number):  # nothing stands under the preamble
            self._open.append((mark.level, clause_id))
        return clause_id, parent

    def _unique(self, name: str) -> str:
        count = self._seen.get(name, 0) + 1
        self._seen[name] = count
        if count == 1:
            return name
        return self._unique(f"{name}~{count}")


def _lines(text: str) -> Iterator[_Line]:
    start = 0
    while start < len(text):
        found = text.find("\n", start)
        end = len(text) if found < 0 else found + 1
        head = text[start : min(end, start + _HEAD)].rstrip()
        yield _Line(start, end, head, text[max(start, end - 40) : end])
        start = end


def _may_begin(rest: str) -> bool:
    """Tell whether this can be the beginning of a sentence or a title."""
    return rest[:1].isupper() or rest[:1] in _OPENERS


def _title(line: _Line, following: _Line | None, at: int) -> tuple[str, int]:
    """Return the title behind a number, often none, and where the clause's own text begins."""
    rest = line.head[at:]
    if not rest:
        return "", line.end
    run_in = _RUN_IN_TITLE.match(rest)
    if run_in and _is_title(run_in["title"], _MOST_WORDS_RUN_IN):
        behind = line.start + at + run_in.end()
        return _clean_title(run_in["title"]), (line.end if run_in.end() >= len(rest) else behind)
    goes_on = following is not None and following.head.lstrip()[:1].islower()
    if len(rest) <= _LONGEST_TITLE and rest[-1] not in ".,;:" and not goes_on and _is_title(rest, _MOST_WORDS):
        return _clean_title(rest), line.end
    return "", line.start + at


def _is_title(text: str, most_words: int) -> bool:
    words = text.strip("*_ ").split()
    if not 1 <= len(words) <= most_words or not words[0][:1].isupper() or _SENTENCE_WORDS.search(text):
        return False
    if len(words) <= _MOST_WORDS_RUN_IN:
        return True
    return all(word[:1].isupper() or not word[:1].isalpha() or word in _SMALL_WORDS for word in words)


def _is_caps(words: str) -> bool:
    return (
        4 <= len(words) <= _LONGEST_TITLE
        and words.isupper()
        and words[-1] not in ".,;"
        and " | " not in words
        and len(words.split()) <= _MOST_WORDS
        and sum(map(str.isalpha, words)) * 2 > len(words)
    )


def _clean_title(text: str) -> str:
    return " ".join(text.strip("*_#: \t").split())[:_LONGEST_TITLE]
