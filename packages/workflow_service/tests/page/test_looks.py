"""Readable in light and dark, on a desk and on a phone."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.needs("chromium")

CONTRACT = b"""Services Agreement

This Services Agreement is made on 1 March 2026 between Northwind Traders Ltd (the "Customer") and Contoso Ltd
(the "Supplier").

1. Fees
The Customer shall pay EUR 120,000 per year. The Supplier may change the fees at any time.

2. Liability
The Customer's liability shall be unlimited.

3. Governing Law
This Agreement is governed by the laws of Sweden.
"""

Check = Callable[[Any], None]
PLACES = count()
WAYS = {  # colours depend on the scheme alone, the layout on the width alone
    "light desk": ({"width": 1280, "height": 860}, "light"),
    "dark phone": ({"width": 400, "height": 740}, "dark"),
}


@pytest.fixture(params=list(WAYS))
def context_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each way the page is looked at."""
    viewport, scheme = WAYS[request.param]
    return {"viewport": viewport, "color_scheme": scheme, "reduced_motion": "reduce"}


@pytest.fixture
def assert_looks_well(look_for_faults: Callable[[Any], list[str]]) -> Check:
    """Nothing faint, nothing without a name, nothing beside the window."""

    def check(person: Any) -> None:
        assert look_for_faults(person.page) == []

    return check


def test_every_view_is_readable_and_fits(person: Any, assert_looks_well: Check) -> None:
    """Contrast of all text is 4.5 or more, controls have names, and no view is wider than the window."""
    page = person.page
    page.goto(f"{person.service.address}#key=wrong")
    expect(page.locator("#key-error")).to_be_visible()
    assert_looks_well(person)
    person.open()
    person.upload("broken.exe", b"x")
    assert_looks_well(person)
    name = "a_very_long_name_without_any_place_to_break_" * 3 + ".txt"
    person.upload(name, CONTRACT)
    result = person.wait_for_result()
    assert_looks_well(person)
    for number in range(len(result["findings"])):
        person.finding(number).click()
        expect(page.locator("#contract mark.selected").first).to_be_in_viewport()
        assert_looks_well(person)
    page.locator("#filters input").first.check()
    assert_looks_well(person)
    person.open()
    expect(page.locator("#latest li").first).to_be_visible()
    assert_looks_well(person)


def test_views_of_workflows_and_runs_are_readable_and_fit(
    person: Any, held: Any, assert_looks_well: Check
) -> None:
    """The same of forms with faults, runs that work, end and fail, results, questions, services and health."""
    page = person.page
    running = held.start(f"nowhere {next(PLACES)}")
    person.open_form("every_field")
    for name in ("Tags", "People"):
        page.get_by_role("button", name=f"Add to {name}").click()
    page.get_by_text("How it runs").click()
    page.get_by_label("Isolation").select_option("Process")
    person.start()
    expect(page.locator("#workflow-faults")).to_be_visible()
    assert_looks_well(person)
    person.open(run=running)
    expect(page.locator("#run-facts .status")).to_contain_text("Running")
    assert_looks_well(person)
    page.get_by_role("button", name="Cancel…").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert_looks_well(person)
    page.keyboard.press("Escape")
    person.go("runs")
    expect(page.locator("#runs li").first).to_be_visible()
    assert_looks_well(person)
    held.gate.set()
    person.open(run=running)
    expect(page.locator("#failure")).to_be_visible(timeout=60_000)
    page.get_by_text("What happened").click()
    expect(page.locator("#history-list li").first).to_be_visible()
    assert_looks_well(person)
    person.open(run=finished(person.service))
    expect(page.locator("#data")).to_be_visible()
    assert_looks_well(person)
    page.locator("#data-as-json").check()
    assert_looks_well(person)
    person.go("services")
    page.locator("#services summary").first.click()
    assert_looks_well(person)
    person.go("health")
    expect(page.locator("#health-loops li").first).to_be_visible()
    assert_looks_well(person)


def finished(service: Any) -> str:
    """A run whose result is no contract's."""
    document = service.upload("a.txt", CONTRACT)
    people = [{"name": "Åsa " * 9, "age": 40}, {"name": "Bo"}]
    given = {"place": "Umeå", "units": "metric", "contract": document, "people": people, "notes": "word " * 200}
    request = {"workflow_name": "every_field", "input_data": given}
    run = service.api.post("/api/v1/workflows/execute", json=request).json()["run_id"]
    assert service.wait_for_end(run)["status"] == "succeeded"
    return str(run)


def test_way_back_to_the_list_on_a_phone(person: Any) -> None:
    """Where list and text are one below the other, a button leads from the place back to its finding."""
    person.open()
    person.upload("agreement.txt", CONTRACT)
    person.wait_for_result()
    person.finding(1).click()
    back = person.page.get_by_role("button", name="List", exact=True)
    if person.page.viewport_size["width"] > 900:
        expect(back).to_be_hidden()
        return
    back.click()
    expect(person.finding(1)).to_be_focused()
    expect(person.finding(1)).to_be_in_viewport()
