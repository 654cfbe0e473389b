"""What comes from a contract stays text."""

from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.needs("chromium")

ATTACK = (
    "<script>window.attacked = 1</script>\n"
    "<img src=x onerror=\"window.attacked = 2\"><svg onload='window.attacked = 3'>\n"
    '</mark></div><a href="javascript:window.attacked = 4">click</a>\n'
    "This Agreement is made on 1 March 2026 between <img src=x onerror=alert(1)> Ltd and Contoso <b>Ltd</b>.\n"
    "This Agreement is governed by the laws of <script>alert(2)</script> Sweden.\n"
)


def test_markup_in_a_contract_is_shown_and_runs_nothing(person: Any) -> None:
    """Tags in text, findings and file name appear as they were written; no script, image or link comes of them."""
    dialogs: list[str] = []

    def note(dialog: Any) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    person.page.on("dialog", note)
    person.open()
    name = "<img src=x onerror=alert(3)>.md"
    person.upload(name, ATTACK.encode(), "text/markdown")
    result = person.wait_for_result()
    assert "".join(person.page.locator("#contract .sheet-text").all_text_contents()) == result["text"]
    assert "<script>" in result["text"]
    expect(person.page.locator("#run-title")).to_have_text(result["document"]["filename"])
    for number in range(len(result["findings"])):
        person.finding(number).click()
    assert person.page.locator("#view-run :is(img, script, svg, b, iframe), #contract a").count() == 0
    assert person.page.evaluate("() => window.attacked") is None
    assert dialogs == []


def test_failed_run_shows_a_hostile_name_as_text(person: Any) -> None:
    """Error messages that quote the file's name are text too."""
    person.open()
    person.upload("<img src=x onerror=alert(4)>.pdf", b"%PDF-1.7 no", "application/pdf")
    expect(person.page.locator("#failure")).to_be_visible(timeout=60_000)
    assert person.page.locator("#failure img").count() == 0


def test_page_forbids_what_it_does_not_need(person: Any) -> None:
    """The service's header and the page's own policy allow nothing inline and nothing from elsewhere."""
    answer = httpx.get(person.service.address, trust_env=False)
    assert "default-src" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    person.open()
    blocked = person.page.evaluate(
        """async () => {
            const script = document.createElement("script");
            let refused = "";
            try {
                script.text = "window.inline = 1";
                document.body.append(script);
            } catch (error) {
                refused = error.name;
            }
            const outside = await fetch("https://example.invalid/").then(() => "reached", () => "refused");
            return [refused, typeof window.inline, outside];
        }"""
    )
    assert blocked == ["TypeError", "undefined", "refused"]
    assert any("example.invalid" in complaint for complaint in person.complaints)
    person.complaints.clear()  # the browser's reports of what it blocked just now
    person.requests[:] = [url for url in person.requests if "example.invalid" not in url]
