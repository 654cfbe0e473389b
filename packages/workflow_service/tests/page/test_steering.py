"""Runs are cancelled, resumed, deleted and found again from the page."""

import json
import re
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Locator, Route, expect

pytestmark = pytest.mark.needs("chromium")

BOUND = 60_000  # ms


def badge(person: Any) -> Locator:
    """The status of the run that the page shows."""
    found: Locator = person.page.locator("#run-facts .status")
    return found


def cancel(person: Any, mode: str) -> None:
    """Answer the dialog."""
    person.page.get_by_role("button", name=re.compile("^Cancel")).first.click()
    dialog = person.page.get_by_role("dialog")
    dialog.locator(f'input[value="{mode}"]').check()
    dialog.get_by_role("button", name="Cancel the run").click()
    expect(dialog).to_be_hidden()


def test_interrupted_run_goes_on_where_it_stopped(person: Any, held: Any) -> None:
    """Cancel in the middle of a step, then resume: the run ends well, and its history tells all of it."""
    run = held.start("Tokyo")
    person.open(run=run)
    expect(badge(person)).to_contain_text("Running")
    cancel(person, "interrupt")
    expect(person.page.get_by_role("heading", name="The run was cancelled")).to_be_visible(timeout=BOUND)
    expect(person.page.locator("#run-said")).to_contain_text("interrupted")
    held.gate.set()
    person.page.get_by_role("button", name="Go on where it stopped").click()
    expect(person.page.locator("#data")).to_be_visible(timeout=BOUND)
    expect(badge(person)).to_have_text("Succeeded")
    person.page.get_by_text("What happened").click()
    kinds = person.page.locator("#history-list")
    for says in (
        "Somebody cancelled it (interrupt)",
        "It ended, cancelled",
        "Somebody let it go on",
        "It ended well",
    ):
        expect(kinds).to_contain_text(says)


def test_softer_modes_are_not_offered_again(person: Any, held: Any) -> None:
    """While a run drains only what is harder can be asked for; «kill» ends it though nothing answers."""
    run = held.start("Hamburg")
    person.open(run=run)
    expect(badge(person)).to_contain_text("Running")
    cancel(person, "drain")
    expect(badge(person)).to_have_text("Cancelling")
    person.page.get_by_role("button", name="Cancel in another way").click()
    modes = person.page.locator('#cancel-dialog input[name="mode"]')
    assert [modes.nth(number).is_disabled() for number in range(4)] == [True, False, False, False]
    person.page.keyboard.press("Escape")
    expect(person.page.get_by_role("button", name="Cancel in another way")).to_be_focused()
    cancel(person, "kill")
    expect(person.page.get_by_role("heading", name="The run was cancelled")).to_be_visible(timeout=BOUND)
    assert person.service.get(f"runs/{run}")["cancel_mode"] == "kill"


def test_run_that_was_rolled_back_can_only_be_run_again(person: Any, held: Any) -> None:
    """What cannot be resumed offers no button for it."""
    run = held.start("Munich")
    person.open(run=run)
    expect(badge(person)).to_contain_text("Running")
    cancel(person, "rollback")
    expect(person.page.get_by_role("heading", name="The run was cancelled")).to_be_visible(timeout=BOUND)
    expect(person.page.get_by_role("button", name="Go on where it stopped")).to_be_hidden()
    expect(person.page.get_by_role("link", name="Run again")).to_be_visible()


def test_run_that_ended_meanwhile_is_shown_as_it_is(person: Any, held: Any) -> None:
    """Somebody else was faster: the page says so and shows how the run stands."""
    run = held.start("Paris")
    person.open(run=run)
    expect(badge(person)).to_contain_text("Running")

    def end_first(route: Route) -> None:
        person.service.api.post(f"/api/v1/runs/{run}/cancel", json={"mode": "kill"}).raise_for_status()
        route.continue_()

    person.page.route("**/cancel", end_first)
    cancel(person, "interrupt")
    expect(person.page.locator("#run-refused")).to_contain_text("has changed meanwhile")
    expect(badge(person)).to_have_text("Cancelled")


def test_dead_run_stands_out_and_is_tried_again(person: Any, held: Any) -> None:
    """A run that needs a person is announced on the first page, and its button lets it go on."""
    run = held.start("London")
    person.service.api.post(f"/api/v1/runs/{run}/cancel", json={"mode": "kill"}).raise_for_status()
    with psycopg.connect(person.service.database_url) as connection:
        connection.execute("SELECT set_config('workflow.scope', 'service', true)")
        error = json.dumps({"type": "WorkerLostError", "message": "its worker was lost five times in a row"})
        changed = connection.execute(
            "UPDATE workflow.runs SET status = 'dead', error = %s WHERE id = %s", [error, run]
        )
        assert changed.rowcount == 1
    person.open()
    expect(person.page.locator("#needing")).to_contain_text("1 run stopped after losing workers")
    person.page.get_by_role("link", name="Look at it").click()
    item = person.page.locator(f'#runs li[data-run="{run}"]')
    expect(item.locator(".status")).to_have_text("Needs you")
    held.gate.set()
    item.get_by_role("button", name="Try again").click()
    expect(person.page.locator("#data")).to_be_visible(timeout=BOUND)


def test_list_follows_what_moves_and_filters_have_addresses(person: Any, held: Any) -> None:
    """A run that ends changes in the list by itself; filters can be linked to and gone back from."""
    run = held.start("Miami")
    person.go("runs&status=active")
    page = person.page
    item = page.locator(f'#runs li[data-run="{run}"]')
    expect(item.locator(".status")).to_contain_text("Running")
    expect(page.get_by_role("combobox", name="Status")).to_have_value("active")
    page.get_by_role("combobox", name="Status").select_option("All")
    page.get_by_role("combobox", name="Workflow").select_option("Emergency contacts")
    expect(page).to_have_url(re.compile("#runs&workflow=emergency_contacts$"))
    expect(item.locator(".status")).to_contain_text("Running")
    held.gate.set()
    expect(item.locator(".status")).to_have_text("Succeeded", timeout=BOUND)
    item.get_by_role("link").click()
    expect(page.locator("#data")).to_be_visible()
    page.get_by_role("link", name="All runs").click()
    expect(page).to_have_url(re.compile("#runs&workflow=emergency_contacts$"))
    page.go_back()
    page.go_back()
    page.go_back()
    expect(page.get_by_role("combobox", name="Workflow")).to_have_value("")
    page.get_by_role("combobox", name="Status").select_option("Cancelling")
    expect(page.locator("#runs-empty")).to_have_text("No run is like this.")


def test_long_list_goes_on_where_it_ended(person: Any) -> None:
    """Older runs are added page by page, each once, and the keyboard is where they begin."""
    document = person.service.upload("a.txt", b"This Agreement is governed by the laws of Sweden.")
    for _ in range(21):
        person.service.execute(document)
    person.go("runs")
    expect(person.page.locator("#runs li")).to_have_count(20)
    person.page.get_by_role("button", name="Show older ones").click()
    expect(person.page.locator("#runs li").nth(20).get_by_role("link")).to_be_focused()
    shown = person.page.locator("#runs li").evaluate_all("items => items.map((item) => item.dataset.run)")
    listed = [run["id"] for run in person.service.get("runs?limit=100")["runs"]]
    assert shown == listed[: len(shown)]


def test_deleted_run_is_gone(person: Any) -> None:
    """Escape keeps it; the button removes it, and the page says so on the list."""
    run = person.service.execute(
        person.service.upload("a.txt", b"This Agreement is governed by the laws of Sweden.")
    )
    person.service.wait_for_end(run)
    person.open(run=run)
    delete = person.page.get_by_role("button", name="Delete…")
    delete.click()
    person.page.keyboard.press("Escape")
    expect(delete).to_be_focused()
    delete.click()
    person.page.get_by_role("button", name="Delete it").click()
    expect(person.page.locator("#farewell")).to_have_text("The run was deleted.")
    expect(person.page.locator("#view-runs")).to_be_visible()
    assert person.service.api.get(f"/api/v1/runs/{run}").status_code == 404


def test_any_result_can_be_read_copied_and_kept(person: Any, context: Any) -> None:
    """A tree to read, JSON to see, the clipboard and a file: each has the service's own words."""
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    body = {"workflow_name": "emergency_contacts", "input_data": {"location": "Nairobi"}}
    run = person.service.api.post("/api/v1/workflows/execute", json=body).json()["run_id"]
    person.service.wait_for_end(run)
    result = person.service.get(f"runs/{run}/result")
    person.open(run=run)
    page = person.page
    tree = page.locator("#data-tree")
    expect(tree.locator("details").first).to_be_visible()
    page.get_by_role("button", name="Copy JSON").click()
    expect(page.locator("#data-status")).to_have_text("Copied.")
    assert json.loads(page.evaluate("() => navigator.clipboard.readText()")) == result
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSON").click()
    assert download.value.suggested_filename == f"emergency_contacts-{run}.json"
    assert json.loads(download.value.path().read_text()) == result
