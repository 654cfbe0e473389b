"""A run asks the person in front of the page, and goes on with the answer."""

from typing import Any

import pytest
from playwright.sync_api import Route, expect

pytestmark = pytest.mark.needs("chromium")

BOUND = 60_000  # ms


def ask(person: Any) -> Any:
    """Start the example from its form; return the card in which its run asks."""
    person.open_form("approval")
    person.page.get_by_label("Letter").fill("Please send EUR 1,200 by Friday.")
    person.start()
    card = person.page.locator("#questions")
    expect(card).to_be_visible(timeout=BOUND)
    return card


def test_a_person_answers_what_a_run_asks(person: Any) -> None:
    """The question, what it is about, and a field of its schema; then the result. A page loaded anew asks, too."""
    card = ask(person)
    run = person.run_id()
    person.open(run=run)
    expect(card).to_contain_text("Shall this be paid?")
    expect(card).to_contain_text("1200")
    expect(person.page.locator("#run-facts .status")).to_have_text("Asks you")
    expect(person.page.locator("#progress-label")).to_have_text("Waiting for you")
    card.get_by_role("button", name="Answer").click()
    expect(card).to_contain_text("Choose one.")
    card.get_by_label("Shall this be paid?").select_option(label="Pay")
    card.get_by_role("button", name="Answer").click()
    expect(person.page.locator("#data")).to_contain_text("paid 1 amounts", timeout=BOUND)
    expect(card).to_be_hidden()
    person.page.get_by_text("What happened").click()
    for says in ("It asks a person", "It was answered", "Decide/pay"):
        expect(person.page.locator("#history-list")).to_contain_text(says)


def test_an_answer_that_comes_too_late_changes_nothing(person: Any) -> None:
    """Somebody else has answered meanwhile: the page goes on with how the run stands."""
    card = ask(person)
    run = person.run_id()
    (question,) = person.service.get(f"runs/{run}")["questions"]

    def after_somebody_else(route: Route) -> None:
        first = person.service.api.post(f"/api/v1/runs/{run}/answer", json={"answers": {question["id"]: "refuse"}})
        assert first.status_code == 202
        route.continue_()

    person.page.route("**/answer", after_somebody_else)
    card.get_by_label("Shall this be paid?").select_option(label="Pay")
    card.get_by_role("button", name="Answer").click()
    expect(person.page.locator("#data")).to_contain_text("refused", timeout=BOUND)
