"""What the page says when something is not accepted or goes wrong, and that the person can go on from there."""

from typing import Any

import pytest
from playwright.sync_api import Route, expect

pytestmark = pytest.mark.needs("chromium")


def test_key_leaves_the_address_bar_and_survives_a_reload(person: Any) -> None:
    """The key is kept in the tab, not in the address: neither a screenshot nor the history shows it."""
    person.open()
    assert person.service.key not in person.page.url
    assert person.page.evaluate("() => Object.keys(localStorage).length + document.cookie.length") == 0
    person.page.reload()
    expect(person.page.locator("#view-start")).to_be_visible()
    assert all(person.service.key not in url for url in person.requests)


@pytest.mark.parametrize("wrong", ["not-the-key", "ключ 🔑", "line\nbreak"])
def test_wrong_key_is_told_and_can_be_corrected(person: Any, wrong: str) -> None:
    """A key that is not accepted leads to a clear message beside the field, and the right one leads on."""
    page = person.page
    page.goto(person.service.address)
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    page.get_by_label("Key", exact=True).fill(wrong)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="The key is not accepted")).to_be_visible()
    page.get_by_label("Key", exact=True).fill(f"  {person.service.key} ")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#samples button").first).to_be_visible()


def test_wrong_key_in_the_address_leads_to_the_field_and_back_to_the_run(person: Any) -> None:
    """An old address with a run in it: after the right key the person is where the address pointed."""
    page = person.page
    nothing = "00000000-0000-4000-8000-000000000000"
    page.goto(f"{person.service.address}#key=old&run={nothing}")
    expect(page.get_by_text("The key is not accepted")).to_be_visible()
    page.get_by_label("Key", exact=True).fill(person.service.key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()
    expect(page.get_by_role("link", name="All runs")).to_be_visible()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("program.exe", b"MZ", "“program.exe” cannot be read"),
        ("no ending", b"text", "“no ending” cannot be read"),
        ("empty.txt", b"", "“empty.txt” is empty"),
    ],
)
def test_file_that_cannot_be_read_is_refused_before_it_is_sent(
    person: Any, name: str, content: bytes, says: str
) -> None:
    """The page knows what the service reads, and names what to use instead."""
    person.open()
    person.upload(name, content)
    expect(person.page.locator("#upload-error")).to_contain_text(says)
    assert not any(url.endswith("/documents") for url in person.requests)


def test_refusal_of_the_format_by_the_service_is_readable(person: Any) -> None:
    """When the service's opinion differs from the page's, the service's reason is shown."""

    def rename(route: Route) -> None:
        body = route.request.post_data_buffer or b""
        body = body.replace(b"notes.txt", b"notes.xyz").replace(b"text/plain", b"image/jpeg")
        route.continue_(post_data=body)

    person.open()
    person.page.route("**/api/v1/documents", rename)
    person.upload("notes.txt", b"Some text")
    error = person.page.locator("#upload-error")
    expect(error).to_contain_text("This kind of file cannot be read")
    expect(error).to_contain_text("notes.xyz")


def test_too_large_file_is_refused_with_a_reason(person: Any) -> None:
    """A file above the limit leads to a message that says so, and the next file is taken."""
    person.open()
    person.upload("long.txt", b"word " * 100_000)
    expect(person.page.locator("#upload-error")).to_contain_text("too large")
    person.upload("short.txt", b"This Agreement is governed by the laws of Sweden.")
    person.wait_for_result()


def test_unreadable_pdf_fails_with_what_to_do(person: Any) -> None:
    """A run that fails ends in the service's reason and advice, not in an endless bar."""
    person.open()
    person.upload("broken.pdf", b"%PDF-1.7\nthis is no PDF", "application/pdf")
    failure = person.page.locator("#failure")
    expect(failure.get_by_role("heading", name="The document could not be read")).to_be_visible(timeout=60_000)
    run = person.service.get(f"runs/{person.page.url.rpartition('=')[2]}")
    assert run["status"] == "failed"
    expect(failure).to_contain_text(run["error"]["message"], ignore_case=True)
    expect(failure).to_contain_text("add the document again")
    expect(person.page.locator("#result")).to_be_hidden()
    person.page.get_by_role("link", name="New run").click()
    expect(person.page.locator("#latest .status").first).to_have_text("Failed")


def test_service_that_is_gone_is_told_and_can_be_tried_again(person: Any) -> None:
    """Without a network the page says that the service cannot be reached; nothing is lost by trying later."""
    person.open()
    person.page.route("**/api/**", lambda route: route.abort("connectionrefused"))
    person.upload("agreement.txt", b"This Agreement is governed by the laws of Sweden.")
    expect(person.page.locator("#upload-error")).to_contain_text("The service cannot be reached")
    person.page.unroute("**/api/**")
    person.upload("agreement.txt", b"This Agreement is governed by the laws of Sweden.")
    person.wait_for_result()
