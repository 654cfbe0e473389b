"""Services, and the health of the service's loops, for people."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Route, expect

pytestmark = pytest.mark.needs("chromium")


def test_services_are_listed_with_what_they_take(person: Any) -> None:
    """Each service, whether it is set up, and the parameters of what it can be asked."""
    person.open()
    person.page.get_by_role("link", name="Services", exact=True).click()
    services = person.service.get("services")["services"]
    assert services
    expect(person.page.locator("#services > li")).to_have_count(len(services))
    card = person.page.locator("#services > li").filter(has_text="Weather").first
    expect(card.locator(".status")).to_have_text("Ready")
    card.locator("summary").filter(has_text="current").click()
    expect(card.get_by_role("rowheader", name="q", exact=True)).to_be_visible()


def test_loops_of_the_service_are_shown_while_one_looks(person: Any) -> None:
    """Verdict, loops, pools and the parts of the service, asked for again and again until the view is left."""
    asked: list[str] = []
    person.page.on(
        "request", lambda request: asked.append(request.url) if "/health/loops" in request.url else None
    )
    person.page.clock.install()
    person.go("health")
    page = person.page
    expect(page.locator("#health-verdict")).to_have_attribute("data-status", re.compile("healthy|warning"))
    expect(page.locator("#health-checks li")).to_have_count(3)
    expect(page.locator("#health-loops > li").first).to_contain_text("Lag")
    seen = len(asked)
    with page.expect_response("**/health/loops"):
        page.clock.run_for(5_000)
    assert len(asked) > seen
    page.get_by_role("button", name="Pause").click()
    seen = len(asked)
    page.clock.run_for(20_000)
    assert len(asked) == seen
    page.get_by_role("link", name="Runs", exact=True).click()
    expect(page.locator("#view-runs")).to_be_visible()
    page.clock.run_for(20_000)
    assert len(asked) == seen


def test_what_is_wrong_is_named_and_what_was_opened_stays_open(person: Any) -> None:
    """A blocked loop, a recommendation and a pool that is waited for; a fold that was closed stays closed."""
    page = person.page

    def trouble(route: Route) -> None:
        report = route.fetch().json()
        loop = report["loops"][0]
        stall = {"since": 1.0, "seconds": 12.4, "blocked_at": ["billing.py:42 in charge"], "task": "charge"}
        loop |= {"name": "worst", "state": "blocked", "stall": stall, "owner": "runtime"}
        finding = {
            "kind": "blocked",
            "status": "critical",
            "subject": "worst",
            "fact": "it sleeps",
            "advice": "await",
        }
        incident = {"kind": "wrong-loop", "text": "a queue of another loop", "at": report["taken_at"], "age": 3.0}
        wrong = {"status": "critical", "monitored": True, "findings": [finding], "incidents": [incident]}
        route.fulfill(body=json.dumps(report | wrong), headers={"Content-Type": "application/json"})

    page.route("**/health/loops", trouble)
    page.clock.install()
    person.go("health")
    expect(page.locator("#health-verdict")).to_have_attribute("data-status", "critical")
    expect(page.locator("#health-recommendations")).to_contain_text("it sleeps")
    expect(page.locator("#health-incidents")).to_contain_text("a queue of another loop")
    fold = page.locator('#health-loops details[data-key="stall-worst"]')
    expect(fold.locator("pre")).to_have_text("billing.py:42 in charge")
    fold.locator("summary").click()
    with page.expect_response("**/health/loops"):
        page.clock.run_for(5_000)
    expect(fold).not_to_have_attribute("open", "")
    expect(fold.locator("summary")).to_be_focused()
    page.unroute("**/health/loops")
    page.route("**/health/**", lambda route: route.abort("connectionrefused"))
    page.clock.run_for(5_000)
    expect(page.locator("#health-error")).to_contain_text("cannot be reached")
    expect(page.locator("#health-verdict")).to_be_visible()
