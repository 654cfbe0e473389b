"""What a validator found, as a predicate that can stand behind any place: "must be a whole number"."""

from collections.abc import Mapping

_WORDS: Mapping[str, str] = {  # kinds of faults whose own words are about Python
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "dict_type": "must be an object",
    "mapping_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "finite_number": "must be a finite number",
    "uuid_parsing": "must be a UUID",
}
_SUBJECTS = (
    "Input should ",
    "String should ",
    "List should ",
    "Tuple should ",
    "Dictionary should ",
    "Value should ",
)


def predicate(kind: str, message: str) -> str:
    """Return pydantic's fault of a ``kind`` as a predicate; a kind that is not known keeps its ``message``."""
    if kind in _WORDS:
        return _WORDS[kind]
    for subject in _SUBJECTS:
        if message.startswith(subject):
            # "… at least 1 item after validation, not 0": of no validation does the sender know.
            return f"must {message.removeprefix(subject).partition(' after validation')[0]}"
    # A validator of ours raises a ValueError, whose words are a predicate already.
    own = message.removeprefix("Value error, ")
    return own if own != message else f"is refused: {message}"
