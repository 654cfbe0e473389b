"""A language model behind a real HTTP server in a provider's format: answers, schemas, faults, costs."""

import asyncio
import logging
from collections.abc import Callable
from email.utils import formatdate
from typing import Any
from uuid import uuid4

import pytest

from workflow_service.domain.language_model import ModelUsage
from workflow_service.gateways.chat_client import ModelChoice, open_chat_client
from workflow_service.gateways.language_model import ChatLanguageModel
from workflow_service.ports import ModelUnavailableError, WorkflowError
from workflow_service.testing.model_server import ModelServer

Ask = Callable[..., Any]
CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "the city that is praised"},
        "people": {"type": "integer", "minimum": 1000},
        "mood": {"enum": ["angry", "glad"]},
    },
    "required": ["city", "people", "mood"],
    "additionalProperties": False,
}
PROMPT = "The weather is bad. Everyone praised the old city of Bath. Its 94092 people are glad."
FITTING = {"city": "Everyone praised the old city of Bath.", "people": 94092, "mood": "glad"}


async def fitting(model: ChatLanguageModel) -> Any:
    return (await model.complete(PROMPT, user_id="alice", schema=CITY)).data


async def plain(model: ChatLanguageModel) -> str:
    return (await model.complete(PROMPT, user_id="alice")).text


def test_text_is_answered_and_accounted_for(ask: Ask, server: ModelServer, ledger: Any) -> None:
    """The answer comes from the prompt; tokens and their price stand under user, run and model."""
    run_id = uuid4()
    answer = ask(lambda m: m.complete(PROMPT, user_id="alice", run_id=run_id, system="Be short."))
    assert answer.text.startswith("16 words")
    assert answer.data is None
    asked, answered = (len(PROMPT) + len("Be short.") + 3) // 4, (len(answer.text) + 3) // 4
    usage = ModelUsage("openai:reader", asked, answered, (asked + 10 * answered) / 1e6)
    assert answer.usage == usage
    assert ledger.entries == [("alice", run_id, usage)]
    assert [message["role"] for message in server.calls[0].body["messages"]] == ["system", "user"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_each_way_of_structured_output_gives_what_fits(ask: Ask, server: ModelServer, method: str) -> None:
    """By the provider's own means, by a tool's arguments, and by JSON mode alone."""
    server.formats = frozenset({method})
    assert ask(fitting, method=method) == FITTING
    assert [call.format for call in server.calls] == [method]


def test_the_best_way_that_a_provider_takes_is_found_and_remembered(ask: Ask, server: ModelServer) -> None:
    """What is refused is not asked for again."""
    server.formats = frozenset({"json_mode"})

    async def twice(model: ChatLanguageModel) -> list[Any]:
        return [await fitting(model), await fitting(model)]

    assert ask(twice) == [FITTING, FITTING]
    assert [call.format for call in server.calls] == ["json_schema", "function_calling", "json_mode", "json_mode"]


def test_a_provider_without_any_way_is_named(ask: Ask, server: ModelServer) -> None:
    """The message says what each way was answered."""
    server.formats = frozenset()
    with pytest.raises(WorkflowError, match=r"no request for structured output \(json_schema: .*choose another"):
        ask(fitting)


@pytest.mark.parametrize("fault", ["off_schema", "not_json"])
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_what_does_not_fit_is_sent_back_and_paid_for(
    ask: Ask, server: ModelServer, ledger: Any, fault: Any, method: str
) -> None:
    """The model is told what was wrong, and both calls are accounted for."""
    server.add_fault(fault)
    answer = ask(lambda m: m.complete(PROMPT, user_id="alice", schema=CITY), method=method)
    assert answer.data == FITTING
    repair = server.calls[1].body["messages"][-1]["content"]
    assert "does not fit" in repair
    assert ("'city' is a required property" in repair) == (fault == "off_schema")
    assert len(ledger.entries) == 2
    assert answer.usage == ledger.entries[0][2].plus(ledger.entries[1][2])


def test_what_never_fits_is_an_error_that_says_how(ask: Ask, server: ModelServer, ledger: Any) -> None:
    """After two repairs it is over; all three calls are accounted for."""
    server.add_fault("off_schema", 3)
    with pytest.raises(WorkflowError, match=r"after 3 calls: \$: 'city' is a required property"):
        ask(fitting)
    assert len(ledger.entries) == 3


@pytest.mark.parametrize("fault", ["rate_limit", "server_error", "overloaded", "hang_up"])
def test_a_fault_that_passes_is_waited_out(ask: Ask, server: ModelServer, fault: Any) -> None:
    """Two refused calls, a third that is answered; only what was answered is accounted for."""
    server.add_fault(fault, 2)
    assert ask(plain).startswith("16 words")
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    ("fault", "why"),
    [("rate_limit", "status 429"), ("server_error", "status 500"), ("hang_up", "no connection")],
)
def test_a_fault_that_stays_says_that_later_may_help(ask: Ask, server: ModelServer, fault: Any, why: str) -> None:
    """As many calls as are allowed, and an error of its own kind."""
    server.add_fault(fault, 5)
    with pytest.raises(ModelUnavailableError, match=rf"did not answer \({why}\); try again later"):
        ask(plain)
    assert len(server.calls) == 3


@pytest.mark.parametrize("said", ["0.02", formatdate(usegmt=True), "nonsense"])
def test_the_wait_that_a_provider_asks_for_is_kept(ask: Ask, server: ModelServer, said: str) -> None:
    """Seconds or a date; what is neither is answered by a wait of our own."""
    server.add_fault("rate_limit", retry_after=said)
    assert ask(plain).startswith("16 words")
    assert len(server.calls) == 2


def test_a_wait_that_is_too_long_is_not_begun(ask: Ask, server: ModelServer) -> None:
    """The run ends with the time that the provider asked for; nobody sits and waits."""
    server.add_fault("rate_limit", retry_after="3600")
    with pytest.raises(ModelUnavailableError, match="asks to wait 3600 seconds"):
        ask(plain)
    assert len(server.calls) == 1


def test_what_no_waiting_helps_against_is_asked_once(ask: Ask, server: ModelServer) -> None:
    """A quota that is used up is no rate limit."""
    server.add_fault("out_of_credit")
    with pytest.raises(WorkflowError, match=r"refused the request: .*quota"):
        ask(plain)
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [("refusal", "refused to answer: I cannot help"), ("cut", "cut at 4,096 tokens; raise WORKFLOW_MODEL_MAX")],
)
@pytest.mark.parametrize("scenario", [plain, fitting])
def test_an_answer_that_is_none_is_no_answer(
    ask: Ask, server: ModelServer, fault: Any, said: str, scenario: Any
) -> None:
    """A refusal and an answer that was cut are told apart from answers, and not asked for again."""
    server.add_fault(fault)
    with pytest.raises(WorkflowError, match=said):
        ask(scenario)
    assert len(server.calls) == 1


def test_a_wrong_key_is_named_and_never_shown(
    ask: Ask, server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The provider quotes the key; neither the error nor any log does."""
    with caplog.at_level(logging.DEBUG), pytest.raises(WorkflowError, match="check WORKFLOW_MODEL_KEY") as caught:
        ask(plain, key="sk-wrong-secret")
    assert "sk-wrong" not in str(caught.value)
    ask(plain)
    assert "sk-wrong" not in caplog.text
    assert "sk-a-key" not in caplog.text


def test_a_choice_shows_no_key(choice: ModelChoice) -> None:
    """Whatever prints it."""
    assert "sk-" not in repr(choice)


def test_a_slow_answer_is_given_up(ask: Ask, server: ModelServer) -> None:
    """The bound holds for the whole call; the server sees its client leave."""
    server.add_fault("slow", 5, seconds=60)
    with pytest.raises(ModelUnavailableError, match=r"nothing within 0\.2 seconds"):
        ask(plain, timeout=0.2, attempts=1)
    assert server.given_up.wait(10)


def test_a_cancelled_call_ends_at_once_and_is_not_tried_again(ask: Ask, server: ModelServer) -> None:
    """Cancellation passes through the retries and closes the request."""
    server.add_fault("slow", seconds=60)

    async def cancel(model: ChatLanguageModel) -> None:
        asking = asyncio.create_task(plain(model))
        while not server.calls:  # noqa: ASYNC110 - the server is on another thread
            await asyncio.sleep(0.005)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    ask(cancel)
    assert server.given_up.wait(10)
    assert len(server.calls) == 1


def test_calls_at_once_are_bounded(ask: Ask, server: ModelServer) -> None:
    """However many ask, the provider is asked by so many at a time."""
    server.add_fault("slow", 8, seconds=0.05)

    async def many(model: ChatLanguageModel) -> list[str]:
        return await asyncio.gather(*(plain(model) for _ in range(8)))

    assert len(ask(many, concurrency=2)) == 8
    assert server.at_once == 2


def test_the_rate_is_bounded(ask: Ask, server: ModelServer) -> None:
    """A limit by the minute is kept between calls: a call waits for its turn."""

    async def three(model: ChatLanguageModel) -> float:
        begun = asyncio.get_running_loop().time()
        for _ in range(3):
            await plain(model)
        return asyncio.get_running_loop().time() - begun

    assert ask(three, requests_per_minute=60 / 0.1) > 0.19  # two turns of 0.1 s: the clock is what is tested


def test_one_model_serves_several_loops_one_after_the_other(ask: Ask, server: ModelServer) -> None:
    """Connections belong to their loop: nothing of an ended loop is used again."""
    assert [ask(plain) for _ in range(3)] == [ask(plain)] * 3


def test_what_cannot_be_set_up_says_what_to_check() -> None:
    """An unknown provider, or a package that is not there."""

    async def main(name: str) -> None:
        async with open_chat_client(ModelChoice(name, key="sk-secret")):
            pass

    for name in ("nobody:model", "mistralai:small"):
        with pytest.raises(WorkflowError, match=f"{name}.* cannot be set up .*check WORKFLOW_MODEL") as caught:
            asyncio.run(main(name))
        assert "sk-secret" not in str(caught.value)
