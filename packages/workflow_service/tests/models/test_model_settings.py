"""The language model that the environment names."""

import pytest

from workflow_service.domain.language_model import ModelPrices
from workflow_service.gateways.model_setting import model_choice
from workflow_service.ports import InvalidSettingError
from workflow_service.settings import Settings


def chosen(monkeypatch: pytest.MonkeyPatch, **variables: str):
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    monkeypatch.setenv("BROKER_URL", "memory://")
    for name, value in variables.items():
        monkeypatch.setenv(f"WORKFLOW_{name}", value)
    return model_choice(Settings.from_environment())


def test_without_a_name_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other settings alone choose nothing."""
    assert chosen(monkeypatch, MODEL_KEY="k") is None


def test_what_is_set_is_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices count when both are set; the temperature may be the provider's; options may hold what is secret."""
    choice = chosen(
        monkeypatch,
        MODEL="openai:m",
        MODEL_KEY="sk-1",
        MODEL_TEMPERATURE="provider",
        MODEL_INPUT_PRICE="2",
        MODEL_OUTPUT_PRICE="8",
        MODEL_OPTIONS='{"default_headers": {"X": "sk-2"}}',
    )
    assert choice is not None
    assert (choice.name, choice.key, choice.temperature) == ("openai:m", "sk-1", None)
    assert choice.prices == ModelPrices(2, 8)
    assert choice.options == {"default_headers": {"X": "sk-2"}}
    assert "sk-" not in repr(choice)
    assert "sk-" not in repr(Settings.from_environment())


def test_the_defaults_are_those_of_the_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A temperature of 0, four attempts, no price."""
    choice = chosen(monkeypatch, MODEL="openai:m", MODEL_INPUT_PRICE="2")
    assert choice is not None
    assert (choice.temperature, choice.attempts, choice.timeout, choice.max_tokens) == (0.0, 4, 60.0, 4096)
    assert choice.prices is None


@pytest.mark.parametrize("options", ["[]", "{broken", "sk-secret"])
def test_options_that_are_no_object_are_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    """The error names the variable only."""
    with pytest.raises(InvalidSettingError, match="WORKFLOW_MODEL_OPTIONS is no JSON object") as caught:
        chosen(monkeypatch, MODEL="openai:m", MODEL_OPTIONS=options)
    assert options not in str(caught.value)


@pytest.mark.parametrize("name", ["gpt", "openai:", ":m", "open ai:m"])
def test_a_name_without_its_provider_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """At the start, not when the first run asks."""
    with pytest.raises(ValueError, match="model"):
        chosen(monkeypatch, MODEL=name)
