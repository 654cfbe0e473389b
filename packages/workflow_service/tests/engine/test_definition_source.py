"""Reading a file: values, their places, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_service.workflows.engine.problems import DefinitionError
from workflow_service.workflows.engine.source import Source

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
)


def test_values_are_those_of_json() -> None:
    """Words that YAML 1.1 takes for something else are texts: a country is no truth value, a date no date."""
    text = "a: [no, on, true, False, 2026-11-30, 12:30, 1.5, 1e3, 007, ~, null, '', 0x1F]\nb:\nc: !!str 12"
    assert Source(text, "x.yaml").value == {
        "a": ["no", "on", True, False, "2026-11-30", "12:30", 1.5, 1000.0, 7, None, None, "", "0x1F"],
        "b": None,
        "c": "12",
    }


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8).filter(
                lambda key: key != "<<"
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.sampled_from([None, "\t", 2]), st.booleans())
def test_json_is_read_as_json_reads_it(value: object, indent: str | int | None, ascii_only: bool) -> None:
    """Whatever the layout, tabs and escapes included."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    if not text.isprintable() and not ascii_only:
        text = json.dumps(value, indent=indent)
    assert Source(text, "x.json").value == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "x.yaml:3:1: the key 'a' stands here a second time, after line 1"),
        ("a: [1", "x.yaml:1:6: this is no YAML"),
        ("a:\n\tb: 1", "x.yaml:2:1: this is no YAML"),
        ("a: 1\n---\nb: 2", "x.yaml:2:1: this is no YAML"),
        ("x: &a [*a]", "x.yaml:1:4: values are nested deeper"),
        ("a: " + "[" * 3000, "x.yaml:1:1: values are nested deeper"),
        ("a: " + "[" * 60 + "]" * 60, "x.yaml:1:44: values are nested deeper"),
        (BOMB, "more than 20,000 values"),
        ("#" * 300_000, "x.yaml:1:1: the file has 300,000 characters"),
        ("a: !!python/object/apply:os.system [true]", "x.yaml:1:4: the tag 'tag:yaml.org,2002:python"),
        ("a: !mine 1", "x.yaml:1:4: the tag '!mine' is not allowed"),
        ("1: 2", "x.yaml:1:1: a key must be a text"),
        ("? [a]\n: 2", "x.yaml:1:3: a key must be a text"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "x.yaml:3:3: merge keys are not supported"),
        ("a: .nan", "x.yaml:1:4: '.nan' is no number that JSON has"),
        ("a: 1e999", "x.yaml:1:4: '1e999' is no number"),
        ("a: " + "9" * 5000, "x.yaml:1:4: '9999"),
        ('a: "\\ud83d"', "x.yaml:1:4: the text holds half of a surrogate pair"),
        ('a: "x\\0"', "x.yaml:1:4: the text holds a NUL"),
        ("a: x\ab", "x.yaml:1:5: the character U+0007 is not allowed"),
        ("", "x.yaml:1:1: the file is empty"),
        ("# nothing\n", "x.yaml:1:1: the file is empty"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, problem: str) -> None:
    """One line: file, line, column, what is wrong."""
    with pytest.raises(DefinitionError) as refused:
        Source(text, "x.yaml")
    assert problem in str(refused.value)


def test_places_are_found_by_path() -> None:
    """Of values, of keys, of a part of a text on a later line, and of what is not there."""
    source = Source("top:\n  list:\n    - 1\n    - two: |\n        first\n        second word\n", "x.yaml")
    assert str(source.problem(("top", "list", 0), "m")) == "x.yaml:3:7: m"
    assert str(source.problem(("top", "list"), "m", at_key=True)) == "x.yaml:2:3: m"
    assert str(source.problem(("top", "list", 1, "two"), "m", text="word")) == "x.yaml:6:16: m"
    assert str(source.problem(("top", "list", 1, "gone", 3), "m")) == "x.yaml:4:7: m"
    assert str(source.problem(("gone",), "m")) == "x.yaml:1:1: m"


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but DefinitionError comes out, whatever goes in."""
    try:
        Source(text, "x.yaml")
    except DefinitionError:
        return
