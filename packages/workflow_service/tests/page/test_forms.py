"""Workflows start from forms that are made from their schemas; what was entered is never lost."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Locator, Route, expect

pytestmark = pytest.mark.needs("chromium")

CONTRACT = b"This Agreement is governed by the laws of Sweden."


def field(person: Any, name: str) -> Locator:
    """The field of a property of the first level."""
    found: Locator = person.page.locator(f'#workflow-form .field[data-name="{name}"]').first
    return found


def choose_sample(person: Any) -> None:
    """Take the first sample for the contract."""
    choice = field(person, "contract").locator("select")
    choice.select_option(index=choice.locator("option").count() - 1)
    expect(field(person, "contract").locator(".is-chosen")).to_be_visible()


def test_place_leads_to_its_contacts(person: Any) -> None:
    """From the tile of a workflow through its form to a result that is no contract's."""
    person.open()
    person.page.locator("#workflows").get_by_role("link", name="Emergency contacts").click()
    field(person, "location").get_by_role("textbox").fill("Berlin")
    expect(field(person, "radius_m").get_by_role("textbox")).to_have_value("5000")
    person.start()
    expect(person.page.locator("#data")).to_be_visible(timeout=60_000)
    run = person.service.get(f"runs/{person.run_id()}")
    assert run["input_data"]["location"] == "Berlin"
    result = person.service.get(f"runs/{run['id']}/result")
    expect(person.page.locator("#run-title")).to_have_text("Berlin")
    person.page.locator("#data-as-json").check()
    assert json.loads(person.page.locator("#data-json").text_content()) == result


def test_every_kind_of_field_sends_its_type(person: Any) -> None:
    """Texts, numbers, choices, switches, days, documents, lists, objects and JSON arrive as the schema says."""
    person.open_form("every_field")
    page = person.page
    field(person, "place").get_by_role("textbox").fill("Umeå")
    field(person, "notes").get_by_role("textbox").fill("two\nlines")
    field(person, "radius").get_by_role("textbox").fill("2,5")
    field(person, "days").get_by_role("textbox").fill("3")
    field(person, "units").get_by_role("combobox").select_option("Imperial")
    field(person, "urgent").get_by_role("checkbox").check()
    field(person, "maps").get_by_role("combobox").select_option("No")
    field(person, "since").locator("input").fill("2026-03-01")
    for tag in ("a", "b"):
        page.get_by_role("button", name="Add to Tags").click()
        page.keyboard.type(tag)
    page.get_by_role("button", name="Add to People").click()
    page.get_by_label("Name").fill("Åsa")
    page.get_by_label("Age").fill("40")
    page.get_by_label("City").fill("Umeå")
    field(person, "extra").get_by_role("textbox").fill('{"deep": [1, null]}')
    with page.expect_file_chooser() as chooser:
        field(person, "contract").get_by_text("Choose a file").click()
    chooser.value.set_files(FilePayload(name="a.txt", mimeType="text/plain", buffer=CONTRACT))
    expect(field(person, "contract").locator(".is-chosen")).to_contain_text("a.txt")
    page.get_by_text("How it runs").click()
    page.get_by_label("Isolation").select_option("Thread")
    page.get_by_label("Time limit in seconds").fill("90.5")
    person.start()
    run = person.service.get(f"runs/{person.run_id()}")
    document = run["input_data"].pop("contract")
    assert person.service.get(f"documents/{document}")["filename"] == "a.txt"
    assert run["input_data"] == {
        "place": "Umeå",
        "notes": "two\nlines",
        "radius": 2.5,
        "days": 3,
        "units": "imperial",
        "urgent": True,
        "maps": False,
        "since": "2026-03-01",
        "tags": ["a", "b"],
        "people": [{"name": "Åsa", "age": 40}],
        "address": {"city": "Umeå"},
        "extra": {"deep": [1, None]},
    }
    assert run["options"] == {"isolation": "thread", "timeout": 90.5}


def test_what_is_wrong_is_said_beside_the_field_before_anything_is_sent(person: Any) -> None:
    """Each fault stands at its field and in a list that leads there; the focus is on that list."""
    person.open_form("every_field")
    page = person.page
    field(person, "place").get_by_role("textbox").fill("x" * 41)
    field(person, "radius").get_by_role("textbox").fill("much")
    field(person, "days").get_by_role("textbox").fill("0")
    field(person, "extra").get_by_role("textbox").fill("{")
    person.start()
    faults = page.locator("#workflow-faults")
    expect(faults).to_be_focused()
    expect(faults.get_by_role("listitem")).to_have_count(5)
    for name, says in (
        ("place", "at most 40"),
        ("radius", "no number"),
        ("days", "at least 1"),
        ("contract", "Choose a document"),
        ("extra", "no JSON"),
    ):
        expect(field(person, name).locator(".error")).to_contain_text(says)
    expect(field(person, "days").get_by_role("textbox")).to_have_attribute("aria-invalid", "true")
    radius = field(person, "radius").get_by_role("textbox")
    radius.fill("1,000")
    person.start()
    expect(field(person, "radius").locator(".error")).to_contain_text("write 1000 or 1.000")
    faults.get_by_role("button", name="Days").click()
    expect(field(person, "days").get_by_role("textbox")).to_be_focused()
    assert not any(url.endswith("/execute") for url in person.requests)
    field(person, "days").get_by_role("textbox").fill("1")
    person.start()
    expect(field(person, "days").locator(".error")).to_be_empty()


def test_what_only_the_service_knows_is_said_beside_the_field(person: Any) -> None:
    """A fault in the service's answer stands where it belongs, and everything entered is still there."""
    person.open_form("every_field")
    field(person, "place").get_by_role("textbox").fill("Umeå")
    field(person, "reference").get_by_role("textbox").fill("not a uuid")
    choose_sample(person)
    person.start()
    expect(field(person, "reference").locator(".error")).to_contain_text("not a uuid")
    expect(person.page.locator("#workflow-faults")).to_be_focused()
    expect(field(person, "place").get_by_role("textbox")).to_have_value("Umeå")
    field(person, "reference").get_by_role("textbox").fill("")
    person.start()
    person.run_id()


def test_form_survives_reload_and_a_refused_key(person: Any) -> None:
    """What was begun is there again after a reload and behind a new key; «Start over» and forgetting end that."""
    page = person.page
    person.open_form("every_field")
    field(person, "place").get_by_role("textbox").fill("Umeå")
    field(person, "days").get_by_role("textbox").fill("half a num")
    choose_sample(person)
    page.get_by_role("button", name="Add to Tags").click()
    page.keyboard.type("kept")
    page.reload()
    expect(field(person, "place").get_by_role("textbox")).to_have_value("Umeå")
    expect(field(person, "days").get_by_role("textbox")).to_have_value("half a num")
    expect(field(person, "contract").locator(".is-chosen")).to_be_visible()
    expect(page.locator(".entries input")).to_have_value("kept")
    field(person, "days").get_by_role("textbox").fill("2")
    page.evaluate("() => sessionStorage.setItem('workflow-service-key', 'revoked')")
    person.start()
    expect(page.get_by_text("The key is not accepted")).to_be_visible()
    page.get_by_label("Key", exact=True).fill(person.service.key)
    page.keyboard.press("Enter")
    expect(field(person, "days").get_by_role("textbox")).to_have_value("2")
    page.get_by_role("button", name="Start over").click()
    expect(field(person, "place").get_by_role("textbox")).to_have_value("")
    field(person, "place").get_by_role("textbox").fill("Umeå")
    page.get_by_role("button", name="Forget the key").click()
    assert page.evaluate("() => sessionStorage.length") == 0


def test_answer_that_is_lost_makes_no_second_run(person: Any) -> None:
    """The service took the run, the answer broke off: sending again leads to that same run."""
    person.open_form("emergency_contacts")
    field(person, "location").get_by_role("textbox").fill("Hamburg")
    before = {run["id"] for run in person.service.get("runs?limit=100")["runs"]}

    def lose(route: Route) -> None:
        route.fetch()
        route.abort("connectionreset")

    person.page.route("**/execute", lose, times=1)
    person.start()
    expect(person.page.locator("#workflow-error")).to_contain_text("The service cannot be reached")
    person.start()
    run = person.run_id()
    after = {run["id"] for run in person.service.get("runs?limit=100")["runs"]}
    assert after - before == {run}


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (429, {"Retry-After": "7"}, "Too many requests. Try again in 7 seconds."),
        (503, {}, "The service is not ready"),
        (413, {}, "This is too large"),
        (409, {}, "Not possible now"),
        (500, {}, "The service failed"),
    ],
)
def test_refusals_are_said_in_words(person: Any, status: int, headers: dict[str, str], says: str) -> None:
    """Whatever the service answers, the person reads what it means and what to do, and can send again."""
    person.open_form("emergency_contacts")
    field(person, "location").get_by_role("textbox").fill("Hamburg")
    person.page.route(
        "**/execute", lambda route: route.fulfill(status=status, headers=headers, body="<html>"), times=1
    )
    person.start()
    expect(person.page.locator("#workflow-error")).to_contain_text(says)
    expect(field(person, "location").get_by_role("textbox")).to_have_value("Hamburg")


def test_run_again_fills_the_form_with_what_was_asked(person: Any) -> None:
    """Input and options of an earlier run stand in the form, its document by name; a change makes a new run."""
    document = person.service.upload("earlier.txt", CONTRACT)
    request = {
        "workflow_name": "every_field",
        "input_data": {"place": "Umeå", "units": "metric", "contract": document, "tags": ["x"]},
        "options": {"timeout": 60},
    }
    run = person.service.api.post("/api/v1/workflows/execute", json=request).json()["run_id"]
    person.open(run=run)
    person.page.get_by_role("link", name="Run again").click()
    expect(field(person, "contract").locator(".is-chosen")).to_contain_text("earlier.txt")
    expect(person.page.get_by_label("Time limit in seconds")).to_have_value("60")
    field(person, "place").get_by_role("textbox").fill("Luleå")
    person.start()
    person.page.wait_for_url(re.compile(r"#run="))
    again = person.service.get(f"runs/{person.run_id()}")
    assert again["input_data"] == {**request["input_data"], "place": "Luleå", "urgent": False}
    person.page.go_back()
    expect(person.page.locator("#view-workflow")).to_be_visible()


def test_entries_of_a_list_can_be_removed(person: Any) -> None:
    """The others keep their values, are counted anew, and the focus is on the one that took the place."""
    person.open_form("every_field")
    page = person.page
    for tag in ("a", "b", "c"):
        page.get_by_role("button", name="Add to Tags").click()
        page.keyboard.type(tag)
    expect(page.get_by_role("button", name="Add to Tags")).to_be_disabled()
    page.get_by_role("button", name="Remove Entry 2").click()
    expect(page.get_by_role("textbox", name="Entry 2")).to_be_focused()
    expect(page.get_by_role("textbox", name="Entry 2")).to_have_value("c")
    expect(page.get_by_role("button", name="Remove Entry")).to_have_count(2)
    expect(page.get_by_role("button", name="Add to Tags")).to_be_enabled()


def test_form_can_be_filled_by_keyboard(person: Any) -> None:
    """Tab reaches every field, the choice of a document and the button; Enter sends."""
    person.open_form("every_field")
    page = person.page
    person.tab_to('[data-name="place"] input')
    page.keyboard.type("Umeå")
    person.tab_to('[data-name="contract"] input[type="file"]')
    person.tab_to('[data-name="contract"] select')
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(field(person, "contract").get_by_role("button", name="Choose another")).to_be_focused()
    person.tab_to("#workflow-start")
    page.keyboard.press("Enter")
    person.run_id()


def test_document_is_chosen_and_removed_by_keyboard(person: Any) -> None:
    """Arrows walk through the closed list and take nothing; Enter does, and going on does."""
    for name in ("first.txt", "second.txt"):
        person.service.upload(name, CONTRACT)
    person.open_form("every_field")
    page, contract = person.page, field(person, "contract")
    expect(contract.locator("option", has_text="second.txt")).to_have_count(1)  # the list is there
    chosen, again = contract.locator(".is-chosen"), contract.get_by_role("button", name="Choose another")
    person.tab_to('[data-name="contract"] input[type="file"]')
    expect(contract.locator("label.button")).to_have_css("outline-style", "solid")
    person.tab_to('[data-name="contract"] select')
    expect(contract.locator("label.button")).to_have_css("outline-style", "none")  # one thing has the focus
    page.keyboard.press("ArrowDown")
    expect(contract.get_by_role("status")).to_have_text(re.compile("Enter takes second.txt"))
    page.keyboard.press("ArrowDown")
    expect(contract.get_by_role("status")).to_have_text(re.compile("Enter takes first.txt"))
    expect(chosen).to_have_count(0)
    page.keyboard.press("Enter")
    expect(chosen).to_contain_text("first.txt")
    expect(again).to_be_focused()
    page.keyboard.press("Enter")
    expect(chosen).to_have_count(0)
    expect(contract.locator('input[type="file"]')).to_be_focused()
    person.tab_to('[data-name="contract"] select')
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    expect(chosen).to_contain_text("first.txt")
    again.focus()
    page.keyboard.press("Space")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(FilePayload(name="third.txt", mimeType="text/plain", buffer=CONTRACT))
    expect(chosen).to_contain_text("third.txt")
    expect(again).to_be_focused()
