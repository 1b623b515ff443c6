"""The console in a real browser, on a real relay: what three people do there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator

import pytest
import requests
from gofax import EXAMPLE
from playwright.sync_api import Browser, Page, expect, sync_playwright
from processes import SECRET, Relay, Sandbox
from programs import eventually, free_port

pytestmark = pytest.mark.slow

PASSWORD = "four plain words here"
ANN, BEN = "+61400000123", "+61400000456"


@pytest.fixture(scope="module")
def browser(missing: Callable[[str, str], None]) -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        missing("chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def console(relay: Relay) -> str:
    """The address of the console of a relay that is about to start."""
    port = free_port()
    text = relay.config.read_text()
    relay.config.write_text(text.replace("admin: off", f'admin: {{listen: "127.0.0.1:{port}"}}'))
    return f"http://127.0.0.1:{port}"


def _link(relay: Relay, name: str, role: str) -> str:
    added = relay.command("users", "add", name, "--role", role)
    assert added.returncode == 0, added.stderr
    return added.stdout.strip()


def _sign_in(browser: Browser, relay: Relay, role: str, **options: object) -> Page:
    """Let somebody of *role* choose a password, and return the page that follows."""
    page = browser.new_context(**options).new_page()
    page.goto(_link(relay, role, role))
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("The same again").fill(PASSWORD)
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_role("heading", name="Needs attention")).to_be_visible()
    return page


def _say(relay: Relay, name: str, text: str, *, customer: str = ANN, secret: str = SECRET) -> int:
    sent = {**EXAMPLE, "messageId": name, "from": customer, "messageBody": text}
    return relay.post(sent, secret=secret).status_code


def _search(page: Page, words: str) -> None:
    page.get_by_role("searchbox", name="Search").fill(words)
    page.get_by_role("button", name="Search").click()


def test_a_support_lead_says_where_the_message_is(
    browser: Browser, relay: Relay, sandbox: Sandbox, console: str
) -> None:
    relay.start()
    assert _say(relay, "m1", "I need the purple invoice") == 200
    assert _say(relay, "m2", "Hello", customer=BEN) == 200
    relay.settled()
    page = _sign_in(browser, relay, "viewer")

    _search(page, ANN[-6:])
    expect(page).to_have_url(re.compile("/console/conversations/"))
    expect(page.locator("main")).to_contain_text("I need the purple invoice")
    # The stand-in's ticket, by its number and with its address.
    ticket = page.locator("main a[href*=tickets]").first
    expect(ticket).to_have_text(re.compile(r"ticket \d+"))

    eventually(lambda: relay.command("events", "--text", "purple", "--json").stdout)
    _search(page, "purple inv")
    expect(page.locator("main")).to_contain_text("I need the purple invoice")
    _search(page, "0400 000 123")
    expect(page.locator("main")).to_contain_text("I need the purple invoice")


def test_a_wrong_secret_is_found_and_what_was_refused_is_let_in(
    browser: Browser, relay: Relay, sandbox: Sandbox, console: str
) -> None:
    right = relay.config.read_text()
    relay.config.write_text(right.replace(SECRET, "the secret of last year"))
    relay.start()
    for number in range(4):
        assert _say(relay, f"m{number}", f"text {number}") == 401
    page = _sign_in(browser, relay, "operator")
    expect(page.locator("main")).to_contain_text("Messages are refused at", timeout=60_000)

    page.get_by_role("link", name="Diagnose them").click()
    page.locator("main tbody a").first.click()
    page.get_by_label("Try another secret").fill(SECRET)
    page.get_by_role("button", name="Try it").click()
    expect(page.locator("main")).to_contain_text("is of the body")

    relay.config.write_text(right)
    assert relay.command("reload").returncode == 0
    eventually(relay.answers)
    page.reload()
    page.get_by_role("button", name="Let in…").click()
    page.get_by_role("button", name=re.compile("Let (it )?in")).click()
    relay.settled()
    assert len(sandbox.records("zendesk")) > 0


def test_an_outage_is_a_problem_until_it_is_over(
    browser: Browser, relay: Relay, sandbox: Sandbox, console: str
) -> None:
    text = relay.config.read_text()
    relay.config.write_text(text.replace("[200ms, 500ms]", "[300ms]"))
    relay.start()
    page = _sign_in(browser, relay, "operator")
    expect(page.locator("main")).to_contain_text("All is well")

    sandbox.stop()
    for number in range(8):
        assert _say(relay, f"m{number}", "hello", customer=f"+6140000{number:04}") == 200
    # Nobody presses reload: the page renews itself.
    expect(page.locator("main")).to_contain_text("does not work", timeout=60_000)
    expect(page.locator("main")).to_contain_text("8 customers", timeout=60_000)

    sandbox.start()
    expect(page.locator("main")).to_contain_text("All is well", timeout=90_000)
    relay.settled()


def test_a_group_is_resent_while_somebody_watches(
    browser: Browser, relay: Relay, sandbox: Sandbox, console: str
) -> None:
    relay.start()
    sandbox.fault(system="zendesk", status=422, times=12)
    for number in range(12):
        assert _say(relay, f"m{number}", "hello", customer=f"+6140000{number:04}") == 200
    events = relay.settled()
    dead = sum(d["state"] == "dead" for event in events for d in event["deliveries"])
    assert dead > 0
    page = _sign_in(browser, relay, "operator")

    page.get_by_role("link", name="Stopped").first.click()
    page.get_by_role("button", name=re.compile("^Resend")).first.click()
    expect(page.locator("main")).to_contain_text("This is what would happen")
    page.get_by_label(re.compile("At most")).fill("4/1s")
    page.get_by_role("button", name=re.compile("Resend")).click()
    expect(page).to_have_url(re.compile("/console/acts/"))
    expect(page.get_by_role("heading", level=1)).to_contain_text(
        f"Finished: {dead}", timeout=60_000
    )
    states = {d["state"] for event in relay.settled() for d in event["deliveries"]}
    assert states == {"delivered"}


def test_an_integrator_sees_what_a_message_would_make(
    browser: Browser, relay: Relay, sandbox: Sandbox, console: str
) -> None:
    relay.start()
    page = _sign_in(browser, relay, "viewer")

    page.get_by_role("link", name="Routes").click()
    page.get_by_role("button", name="Try it").click()

    result = page.locator("#result")
    expect(result).to_contain_text("replies become tickets")
    expect(result).to_contain_text("Please call me back, it is urgent")
    assert result.get_by_role("heading", name="front-desk").is_visible()
    assert sandbox.records() == []
    assert relay.listed("events") == []


def test_a_pause_of_two_hours_and_who_may_not(
    browser: Browser, relay: Relay, sandbox: Sandbox, console: str
) -> None:
    relay.start()
    page = _sign_in(browser, relay, "operator")
    page.get_by_role("link", name="Destinations").click()
    page.get_by_role("link", name="helpdesk").click()
    page.get_by_label("Why").fill("they move house")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("main")).to_contain_text("helpdesk is paused")
    assert _say(relay, "m1", "hello") == 200
    eventually(lambda: sandbox.records("hubspot"))
    assert sandbox.records("zendesk") == []

    viewer = _sign_in(browser, relay, "viewer")
    viewer.goto(f"{console}/console/destinations/helpdesk")
    expect(viewer.get_by_role("button", name="Resume")).to_have_count(0)
    assert viewer.goto(f"{console}/console/settings/people").status == 403

    page.get_by_role("button", name="Resume").click()
    relay.settled()
    assert sandbox.records("zendesk") != []


def test_a_session_ends_everywhere(browser: Browser, relay: Relay, console: str) -> None:
    relay.start()
    page = _sign_in(browser, relay, "operator")
    cookies = page.context.cookies()
    other = browser.new_context()
    other.add_cookies(cookies)
    thief = other.new_page()
    thief.goto(f"{console}/console/events")
    expect(thief.get_by_role("heading", name="Events")).to_be_visible()

    page.get_by_role("button", name="Sign out").click()

    thief.reload()
    expect(thief.get_by_role("heading", name="Sign in")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    public = requests.get(f"{relay.url}/console/", timeout=10)
    assert public.status_code == 404


def test_without_script_one_searches_reads_resends_and_pauses(
    browser: Browser, relay: Relay, sandbox: Sandbox, console: str
) -> None:
    relay.start()
    sandbox.fault(system="zendesk", status=422, times=1)
    assert _say(relay, "m1", "the purple invoice") == 200
    relay.settled()
    page = _sign_in(browser, relay, "operator", java_script_enabled=False)

    _search(page, ANN[-6:])
    expect(page.locator("main")).to_contain_text("the purple invoice")
    _search(page, "m1")
    expect(page).to_have_url(re.compile("/console/events/evt_"))
    page.get_by_role("button", name=re.compile("^Resend")).first.click()
    expect(page.locator("main")).to_contain_text("This is what would happen")
    page.get_by_role("button", name=re.compile("^Resend")).click()
    states = {d["state"] for event in relay.settled() for d in event["deliveries"]}
    assert states == {"delivered"}

    page.goto(f"{console}/console/destinations/crm")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("main")).to_contain_text("crm is paused")


def test_an_event_is_watched_until_it_has_arrived(
    browser: Browser, relay: Relay, sandbox: Sandbox, console: str
) -> None:
    relay.start()
    assert relay.command("pause", "helpdesk").returncode == 0
    assert _say(relay, "m1", "hello") == 200
    page = _sign_in(browser, relay, "operator")
    _search(page, "m1")
    expect(page.locator("main .state", has_text="arrived")).to_have_count(2, timeout=30_000)
    details = page.locator("main details", has_text="Payload").first
    details.locator("summary").click()

    assert relay.command("resume", "helpdesk").returncode == 0

    # Nobody presses reload, and what somebody has opened stays open.
    expect(page.locator("main .state", has_text="arrived")).to_have_count(3, timeout=30_000)
    expect(details).to_have_attribute("open", "")
