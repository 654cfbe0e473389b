"""The two modules with arithmetic in them, against Python's own answers."""

import json
import random
from typing import Any

import pytest

pytestmark = pytest.mark.needs("chromium")

ALPHABET = ["a", " ", "\n", "é", "e\u0301", "漢", "🧾", "👩‍⚖️", "🇸🇪", "\U0001d53c", "\u200f", "\uffff"]

SLICES = """async ([text, spans]) => {
    const { CodePoints } = await import("./lib/code-points.js");
    const points = new CodePoints(text);
    return spans.map(([start, end]) => text.slice(points.toUtf16(start), points.toUtf16(end)));
}"""

VALUES = """async (values) => {
    const { readable } = await import("./lib/values.js");
    return values.map(readable);
}"""

PARSE = """async (chunks) => {
    const { EventParser } = await import("./lib/event-stream.js");
    const parser = new EventParser();
    return chunks.flatMap((chunk) => parser.feed(chunk)).map(({ id, kind, data }) => [id, kind, data]);
}"""


def test_offsets_cut_as_python_cuts(person: Any) -> None:
    """A place in code points cuts the same characters out of the text in the browser as in Python."""
    person.page.goto(person.service.address)
    chance = random.Random(20260301)
    for _ in range(20):
        text = "".join(chance.choices(ALPHABET, k=chance.randrange(60)))
        spans = [sorted((chance.randrange(len(text) + 1), chance.randrange(len(text) + 1))) for _ in range(30)]
        spans.append([0, len(text) + 5])
        assert person.page.evaluate(SLICES, [text, spans]) == [text[start:end] for start, end in spans]


def test_events_are_read_wherever_the_stream_is_cut(person: Any) -> None:
    """Any line ending, any chunk border, comments and unknown fields in between: the same events come out."""
    person.page.goto(person.service.address)
    data = json.dumps({"seq": 2, "description": "naïve: 🧾"}, ensure_ascii=False)
    lines = [
        ": ping",
        "",
        "id: 1",
        "event: queued",
        "data: {}",
        "",
        "retry: 5",
        f"data:{data}",
        "id:2",
        "event",
        "",
        "data: a",
    ]
    lines += ["data:  b", "event: progress", "", "id: 9", "", "data: unfinished"]
    expected = [["1", "queued", "{}"], ["2", "message", data], [None, "progress", "a\n b"]]
    for ending in ("\n", "\r\n", "\r"):
        stream = ending.join(lines)
        for cut in range(len(stream)):
            assert person.page.evaluate(PARSE, [stream[:cut], stream[cut:]]) == expected, (ending, cut)
        assert person.page.evaluate(PARSE, list(stream)) == expected


def test_normalised_values_are_told_in_words(person: Any) -> None:
    """Dates, durations and money read well; what is none of them, or only looks like one, stays as it is."""
    person.page.goto(person.service.address)
    told = {
        "2026-03-01": "March 1, 2026",
        "P36M": "36 months",
        "P1Y": "1 year",
        "50000.00 USD": "USD\N{NO-BREAK SPACE}50,000",
        "99.50 EUR": "EUR\N{NO-BREAK SPACE}99.50",
        "2026-13-45": "2026-13-45",
        "P": "P",
        "New York": "New York",
        "": "",
    }
    assert person.page.evaluate(VALUES, list(told)) == list(told.values())
