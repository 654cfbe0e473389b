"""The two modules with arithmetic in them, against Python's own answers."""

import json
import random
from typing import Any

import pytest

pytestmark = pytest.mark.needs("chromium")

ALPHABET = ["a", " ", "\n", "é", "e\u0301", "漢", "🧾", "👩‍⚖️", "🇸🇪", "\U0001d53c", "\u200f", "\uffff"]

SLICES = """async ([text, spans]) => {
    const { CodePoints } = await import("./code-points.js");
    const points = new CodePoints(text);
    return spans.map(([start, end]) => text.slice(points.toUtf16(start), points.toUtf16(end)));
}"""

PARSE = """async (chunks) => {
    const { EventParser } = await import("./event-stream.js");
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
