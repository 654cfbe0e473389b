"""What the local model server «thinks»: answers computed from the prompt, by rules, the same each time.

It stands in for a language model where the way to one is tested, not its wit. It reads by cues of its own, which
are not those of `domain.analysis`: what both find and what only one finds can be told apart.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

Json = Any  # a schema, or what fits it: JSON has no narrower type

_MATERIAL = re.compile(r"<(?P<tag>contract|document|text)>\n?(?P<text>.*)</(?P=tag)>", re.DOTALL)
_SENTENCE = re.compile(r"[^.;\n][^.;]*[.;]?", re.DOTALL)
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"

_CUES: Sequence[tuple[str, str, re.Pattern[str]]] = (
    ("party", "party", re.compile(r"\b[A-Z][\w&]*(?: [A-Z&][\w&]*){0,4},? (?:Inc\.|LLC|Ltd|GmbH)")),
    ("date", "date", re.compile(rf"\b(?:{_MONTHS}) \d{{1,2}}, \d{{4}}")),
    ("money", "amount", re.compile(r"\bUSD \d[\d,]*(?:\.\d\d)?|\$\d[\d,]*(?:\.\d\d)?")),
    ("governing_law", "governing law", re.compile(r"(?<=laws of )(?:the State of )?[A-Z]\w+(?: [A-Z]\w+)?")),
    ("notice_period", "notice", re.compile(r"\b\d{1,3}\)? days(?=[’'] )")),
    ("obligation", "party", re.compile(r"\b[A-Z]\w+ must [^.;]+")),
    ("risk", "audit without notice", re.compile(r"[^.;\n]*\baudit\b[^.;]*\bwithout notice\b[^.;]*[.;]")),
    ("risk", "no refund", re.compile(r"[^.;\n]*\bnon-?refundable\b[^.;]*[.;]")),
)


def reply(messages: Sequence[Mapping[str, Json]], schema: Json | None, inventions: int = 0) -> str:
    """Return the answer to a conversation: JSON that fits ``schema``, or text.

    ``inventions`` adds so many findings whose quotes stand nowhere, as models do.
    """
    question = next((_words(message) for message in messages if message.get("role") == "user"), "")
    material = match["text"] if (match := _MATERIAL.search(question)) else question
    if schema is None:
        return _summary(material)
    return json.dumps(_fill(schema, "", material, inventions), ensure_ascii=False)


def schema_in(messages: Sequence[Mapping[str, Json]]) -> Json | None:
    """Return the JSON Schema that stands in a prompt; None if none does."""
    for message in messages:
        words = _words(message)
        for match in re.finditer(r"^\{", words, re.MULTILINE):
            try:
                found, _ = json.JSONDecoder().raw_decode(words, match.start())
            except ValueError:
                continue
            return found
    return None


def tokens(text: str) -> int:
    """Return about how many tokens a text has: one for four characters."""
    return (len(text) + 3) // 4


def _words(message: Mapping[str, Json]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _summary(material: str) -> str:
    words = re.findall(r"[A-Za-z]{5,}", material)
    often = ", ".join(word for word, _ in Counter(map(str.lower, words)).most_common(3))
    first = next(iter(_sentences(material)), "")
    return f"{len(material.split())} words, mostly about {often or 'nothing'}. It begins: {first}"


def _sentences(text: str) -> Iterator[str]:
    return (stripped for match in _SENTENCE.finditer(text) if (stripped := match[0].strip()))


def _fill(schema: Json, name: str, material: str, inventions: int) -> Json:
    """Return a value that fits a schema, made of what the material says."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        said = material.lower()
        options = [option for option in schema["enum"] if isinstance(option, str) and option.lower() in said]
        return (options or schema["enum"])[0]
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        kind = next(one for one in kind if one != "null")
    return _FILLERS[kind](schema, name, material, inventions)


def _object(schema: Json, _name: str, material: str, inventions: int) -> Json:
    properties = schema.get("properties", {})
    return {name: _fill(part, name, material, inventions) for name, part in properties.items()}


def _array(schema: Json, name: str, material: str, inventions: int) -> Json:
    items = schema.get("items", {"type": "string"})
    if "quote" in items.get("properties", {}):
        return [*_findings(items, material), *(_invention(items, number) for number in range(inventions))]
    return [_fill(items, name, material, inventions)]


def _string(schema: Json, name: str, material: str, _inventions: int) -> str:
    if schema.get("format") == "date":
        found = re.search(r"\d{4}-\d\d-\d\d", material)
        return found[0] if found else "1970-01-01"
    wanted = set(re.findall(r"[a-z]{3,}", f"{name} {schema.get('description', '')}".lower()))
    sentences = list(_sentences(material)) or [""]
    best = max(sentences, key=lambda sentence: len(wanted & set(re.findall(r"[a-z]{3,}", sentence.lower()))))
    return best[: schema.get("maxLength", 500)]


def _number(schema: Json, _name: str, material: str, _inventions: int) -> float:
    lowest, highest = schema.get("minimum", float("-inf")), schema.get("maximum", float("inf"))
    for match in re.finditer(r"\d+(?:\.\d+)?", material):
        if lowest <= float(match[0]) <= highest:
            return float(match[0])
    return float(schema.get("minimum", 0))


def _integer(schema: Json, name: str, material: str, inventions: int) -> int:
    return int(_number(schema, name, material, inventions))


def _boolean(_schema: Json, name: str, material: str, _inventions: int) -> bool:
    return all(word in material.lower() for word in name.lower().split("_"))


def _null(_schema: Json, _name: str, _material: str, _inventions: int) -> None:
    return None


_FILLERS: Mapping[str, Callable[[Json, str, str, int], Json]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "null": _null,
}


def _findings(item_schema: Json, material: str) -> Iterator[Json]:
    for kind, label, cue in _CUES:
        for match in cue.finditer(material):
            quote = match[0].strip()
            yield _finding(item_schema, kind, label, _value(kind, quote), quote)


def _invention(item_schema: Json, number: int) -> Json:
    quote = f"this sentence, number {number}, stands in no contract"
    return _finding(item_schema, "obligation", "Nobody", quote, quote)


def _finding(item_schema: Json, kind: str, label: str, value: str, quote: str) -> Json:
    severity = "medium" if kind == "risk" else None
    advice = "Ask to strike it." if kind == "risk" else ""
    known = {
        "kind": kind, "label": label, "value": value, "quote": quote, "severity": severity, "advice": advice,
    }  # fmt: skip
    return {name: known.get(name) for name in item_schema["properties"]}


def _value(kind: str, quote: str) -> str:
    match kind:
        case "date":
            return datetime.strptime(quote, "%B %d, %Y").date().isoformat()
        case "money":
            return f"{quote.strip('USD $').replace(',', '')} USD"
        case "governing_law":
            return quote.removeprefix("the State of ")
        case "notice_period":
            return f"P{re.sub(r'[^0-9]', '', quote)}D"
        case _:
            return quote
