"""From a contract to its findings beside the text."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from workflow_service.settings import Settings

SAMPLES: Path = Settings.model_fields["samples"].default

pytestmark = pytest.mark.needs("chromium")

EMOJI_CONTRACT = """# 🤝🏽 Services Agreement 🖋️

👩‍⚖️ This Services Agreement is made on 1 March 2026 between Näcken Förlag AB (the "Customer") 🏢 and Contoso Ltd
(the "Supplier") 🏭.

1. Fees 💶
The Customer shall pay EUR 120,000 per year 💸 within fourteen (14) days of each invoice.

2. Liability ⚠️
The Customer's liability under this Agreement shall be unlimited.

3. Governing Law 🇸🇪
This Agreement is governed by the laws of Sweden. 🏁 End.
"""


def in_text_order(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The findings in the order in which the page lists them."""
    findings: list[dict[str, Any]] = result["findings"]
    return sorted(findings, key=lambda finding: finding["span"])


def assert_each_finding_highlights_its_place(person: Any, result: dict[str, Any]) -> None:
    """Click every finding; what is highlighted is, character by character, what the service pointed at."""
    findings = in_text_order(result)
    assert findings
    for number, finding in enumerate(findings):
        person.finding(number).click()
        start, end = finding["span"]
        assert person.highlighted() == result["text"][start:end] == finding["quote"]
        expect(person.page.locator("#contract mark.selected").first).to_be_in_viewport()


def test_upload_of_a_pdf_shows_progress_then_findings_in_the_text(person: Any) -> None:
    """A PDF chosen by the button is analysed before the person's eyes, and each finding leads to its words."""
    person.open()
    sample = next(SAMPLES.glob("*.pdf"))
    person.page.evaluate(
        """() => {
            window.seen = [];
            const look = () => window.seen.push(document.getElementById("progress-bar").value);
            new MutationObserver(look).observe(document.getElementById("progress-bar"), { attributes: true });
        }"""
    )
    person.upload(sample.name, sample.read_bytes(), "application/pdf")
    result = person.wait_for_result()
    seen = person.page.evaluate("() => window.seen")
    assert seen[-1] == 100
    assert sorted(seen) == seen
    expect(person.page.locator("#run-title")).to_have_text(sample.name)
    expect(person.page.locator("#findings > li")).to_have_count(len(result["findings"]))
    assert len(result["document"]["pages"]) > 1
    expect(person.page.get_by_role("region", name="Page")).to_have_count(len(result["document"]["pages"]))
    assert "".join(person.page.locator("#contract .sheet-text").all_text_contents()) == result["text"]
    assert_each_finding_highlights_its_place(person, result)


def test_places_are_right_behind_emoji(person: Any) -> None:
    """Characters that JavaScript counts twice do not move the highlighted place."""
    person.open()
    person.upload("agreement.md", EMOJI_CONTRACT.encode(), "text/markdown")
    assert_each_finding_highlights_its_place(person, person.wait_for_result())


def test_every_sample_can_be_analysed(person: Any) -> None:
    """Each contract that ships with the service is one click away."""
    for number in range(len(person.list_samples())):
        person.open()
        person.page.locator("#samples button").nth(number).click()
        assert person.wait_for_result()["findings"]


def test_dropped_file_is_analysed(person: Any) -> None:
    """A contract dropped on the window is taken like a chosen one."""
    person.open()
    data = person.page.evaluate_handle(
        """(text) => {
            const data = new DataTransfer();
            data.items.add(new File([text], "dropped.md", { type: "text/markdown" }));
            return data;
        }""",
        EMOJI_CONTRACT,
    )
    person.page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    assert person.wait_for_result()["document"]["filename"] == "dropped.md"


def test_clicking_a_place_selects_its_finding(person: Any) -> None:
    """The way from the text back to the list: the finding opens, is in view, and has the focus."""
    person.open()
    person.upload("agreement.md", EMOJI_CONTRACT.encode())
    result = person.wait_for_result()
    last = len(in_text_order(result)) - 1
    person.finding(last).click()
    person.page.locator("#contract mark.selected").first.scroll_into_view_if_needed()
    place = person.page.locator("#contract mark.selected").first.element_handle()
    person.finding(0).click()
    place.click()
    selected = person.page.locator("#findings > li.selected")
    expect(selected).to_have_count(1)
    expect(selected.locator("button")).to_be_focused()
    expect(selected.locator("button")).to_be_in_viewport()
    expect(selected.locator("button")).to_have_attribute("aria-expanded", "true")


def test_summary_leads_to_the_gravest_risk(person: Any) -> None:
    """What the summary names first is one click from its words, whatever the filters hide."""
    person.open()
    person.upload("agreement.md", EMOJI_CONTRACT.encode())
    result = person.wait_for_result()
    risk = result["summary"]["top_risks"][0]
    person.page.locator('#filters input[value="party"]').check()
    person.page.locator("#top-risks button").first.click()
    expect(person.page.locator("#findings > li.selected .finding-label")).to_have_text(
        risk["label"], ignore_case=True
    )
    quotes = [finding["quote"] for finding in result["findings"] if finding["label"] == risk["label"]]
    assert person.highlighted() in quotes


def test_filters_leave_what_was_asked_for(person: Any) -> None:
    """A kind and a severity narrow the list, the marks and the way through them; «Show all» takes them back."""
    person.open()
    person.upload("agreement.md", EMOJI_CONTRACT.encode())
    result = person.wait_for_result()
    kinds = {finding["kind"] for finding in result["findings"]}
    assert len(kinds) > 1
    kind = in_text_order(result)[0]["kind"]
    expected = [finding for finding in in_text_order(result) if finding["kind"] == kind]
    person.page.locator(f'#filters input[value="{kind}"]').check()
    shown = person.page.locator("#findings > li:visible")
    expect(shown).to_have_count(len(expected))
    expect(person.page.locator("#findings-count")).to_have_text(
        f"{len(expected)} of {len(result['findings'])} findings"
    )
    for finding in expected:
        person.page.get_by_role("button", name="Next finding").click()
        assert person.highlighted() == finding["quote"]
    person.page.get_by_role("button", name="Show all").click()
    expect(shown).to_have_count(len(result["findings"]))


def test_earlier_analysis_opens_from_the_list_and_by_its_address(person: Any) -> None:
    """A result stays: in the list of the start page, and behind an address that can be kept."""
    person.open()
    person.upload("kept 📎.md", EMOJI_CONTRACT.encode())
    result = person.wait_for_result()
    run = person.page.url.rpartition("=")[2]
    person.page.get_by_role("link", name="All runs").click()
    person.page.locator(f'#runs a[href="#run={run}"]').click()
    assert person.wait_for_result() == result
    person.page.go_back()
    expect(person.page.locator("#view-runs")).to_be_visible()
    person.open(run=run)
    assert person.wait_for_result() == result
    expect(person.page.locator("#run-title")).to_have_text("kept 📎.md")


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (0.0123, "USD 0.0123"),
        (0.00001, "less than USD 0.0001"),
        (0.0, "free of charge"),
        (None, "at a price that is not set here"),
    ],
)
def test_what_a_language_model_added_is_told(person: Any, cost: float | None, words: str) -> None:
    """Who found what, and what the model read, left out and cost, stand with the findings and the summary."""
    usage = {"model": "openai:m", "input_tokens": 900, "output_tokens": 100, "cost": cost}
    counts = {
        "windows": 1,
        "chars": 9,
        "chars_not_read": 0,
        "confirmed": 1,
        "added": 2,
        "dropped": {"no quote": 1},
    }

    def read_by_model(route: Route) -> None:
        result = route.fetch().json()
        result["model"] = counts | {"usage": usage}
        result["findings"][0]["source"] = "model"
        route.fulfill(json=result)

    person.page.route("**/result", read_by_model)
    person.open()
    person.upload("agreement.md", EMOJI_CONTRACT.encode())
    person.wait_for_result()
    told = person.page.locator("#summary-model")
    expect(told).to_contain_text("read 1 part: it added 2 findings and confirmed 1")
    expect(told).to_contain_text("1 finding that the text does not bear out was left out")
    expect(told).to_contain_text(f"1000 tokens, {words}.")
    expect(person.page.locator("#findings .source").first).to_have_text("found by the language model")


def test_lost_connection_is_told_and_taken_up_where_it_broke(person: Any) -> None:
    """After a break the page asks for what came after the last event it has: no step is lost or doubled."""
    person.open()
    asked: list[str | None] = []
    told: list[str] = []

    def break_twice(route: Route) -> None:
        asked.append(route.request.headers.get("last-event-id"))
        if len(asked) == 1:
            response = route.fetch()
            events = response.text().replace("\r\n", "\n").split("\n\n")
            route.fulfill(response=response, body="\n\n".join(events[:3]) + "\n\n" + events[3][:9])
        elif len(asked) == 2:
            told.append(person.page.locator("#connection").text_content() or "")
            route.abort("connectionfailed")
        else:
            route.continue_()

    person.page.route("**/events", break_twice)
    person.page.evaluate(
        """() => {
            window.steps = [];
            const see = (changes) => changes.forEach((change) =>
                change.addedNodes.forEach((node) => window.steps.push(node.dataset.step)));
            new MutationObserver(see).observe(document.getElementById("steps"), { childList: true });
        }"""
    )
    person.upload("agreement.md", EMOJI_CONTRACT.encode())
    person.wait_for_result()
    assert len(asked) == 3
    assert asked[0] is None
    assert asked[1] == asked[2] == "3"
    assert "connection to the service was lost" in told[0]
    steps = person.page.evaluate("() => window.steps")
    assert steps
    assert len(set(steps)) == len(steps)


def test_all_can_be_done_by_keyboard(person: Any) -> None:
    """From the sample to a highlighted place and back, without a pointer."""
    person.open()
    page = person.page

    person.tab_to("#samples button")
    page.keyboard.press("Enter")
    person.wait_for_result()
    expect(page.locator("#run-title")).to_be_focused()
    person.tab_to("#filters input")
    page.keyboard.press("Space")
    expect(page.locator("#filters input").first).to_be_checked()
    page.keyboard.press("Space")
    person.tab_to("#findings button")
    page.keyboard.press("ArrowDown")
    expect(person.finding(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(person.finding(1)).to_have_attribute("aria-expanded", "true")
    assert person.highlighted()
    before = person.highlighted()
    person.tab_to("#next")
    page.keyboard.press("Enter")
    expect(person.finding(1)).to_have_attribute("aria-expanded", "false")
    assert person.highlighted() != before
