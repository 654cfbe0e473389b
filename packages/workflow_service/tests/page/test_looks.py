"""Readable in light and dark, on a desk and on a phone."""

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

CONTRAST = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const parse = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return { rgb: [r, g, b], opaque: a === 255 };
    };
    const luminance = (rgb) => {
        const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        const [r, g, b] = rgb.map((c) => linear(c / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = parse(getComputedStyle(at).backgroundColor);
            if (color.opaque) return color.rgb;
        }
        return [255, 255, 255];
    };
    const faint = [];
    let looked = 0;
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = texts.nextNode(); node; node = texts.nextNode()) {
        const element = node.parentElement;
        if (!node.data.trim() || !element.checkVisibility({ opacityProperty: true })) continue;
        if (element.closest(":disabled, noscript")) continue;
        looked += 1;
        const pair = [parse(getComputedStyle(element).color).rgb, ground(element)];
        const [low, high] = pair.map(luminance).sort((a, b) => a - b);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < 4.5) faint.push(`${ratio.toFixed(2)}: ${node.data.trim().slice(0, 40)}`);
    }
    return { looked, faint };
}"""

NAMELESS = """() => [...document.querySelectorAll("button, a[href], input, select, textarea, progress")]
    .filter((control) => control.checkVisibility())
    .filter((control) => !(control.labels?.length || control.textContent.trim() || control.ariaLabel ||
        control.getAttribute("aria-labelledby")))
    .map((control) => control.outerHTML)"""


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


def assert_looks_well(person: Any) -> None:
    """Nothing faint, nothing without a name, nothing beside the window."""
    contrast = person.page.evaluate(CONTRAST)
    assert contrast["looked"] > 3
    assert contrast["faint"] == []
    assert person.page.evaluate(NAMELESS) == []
    assert person.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_every_view_is_readable_and_fits(person: Any) -> None:
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


def test_views_of_workflows_and_runs_are_readable_and_fit(person: Any, held: Any) -> None:
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
