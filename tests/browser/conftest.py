"""A real browser for the pages. A page that logs an error, violates the CSP or calls another origin fails its test."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.db import connection
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, sync_playwright

from portal.models import User

# Without a window's machinery, which takes 0.8 of the 1 CPU second that Chromium needs for each page.
HEADLESS_SHELL = "chromium-headless-shell"
CHROMIUM = next(
    filter(None, map(shutil.which, (HEADLESS_SHELL, "chromium", "chromium-browser", "google-chrome"))), None
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RUN_AXE = """async (options) => (await axe.run(options)).violations.flatMap(
  (rule) => rule.nodes.map((node) => `${rule.id}: ${node.html.slice(0, 120)}`))"""
# The rules that depend on the theme. All others give the same result in both themes.
OF_COLOUR = ["color-contrast", "link-in-text-block"]
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("There is no Chromium on this machine: `make test-browser` installs it.")
    # Playwright's event loop makes Django assume that it is called from asynchronous code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@dataclass
class Guard:
    """Records what must not happen on any page. `expected` lists parts of messages that a test causes itself."""

    origin: str
    expected: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("console", lambda message: message.type in ("error", "warning") and self.note(message.text))
        page.on("pageerror", lambda error: self.note(f"uncaught: {error}"))
        page.on("request", lambda request: self.check_url(request.url))
        page.on("dialog", self.refuse)

    def refuse(self, dialog: Dialog) -> None:
        """Note a dialog, which no script of the portal opens."""
        self.note(f"dialog: {dialog.message}")
        dialog.dismiss()

    def check_url(self, url: str) -> None:
        if not url.startswith((self.origin, "data:")):
            self.note(f"another origin: {url}")

    def note(self, problem: str) -> None:
        if not any(part in problem for part in self.expected):
            self.problems.append(problem)


@pytest.fixture
def guard(live_server: Any) -> Iterator[Guard]:
    guard = Guard(live_server.url)
    yield guard
    assert guard.problems == []


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(
    browser: Browser, live_server: Any, guard: Guard, client_for: Callable[[User], Client]
) -> Iterator[OpenPage]:
    """Open a guarded page in its own browser context: `open_page("/o/acme/", user, width=320, javascript=False)`."""
    contexts: list[BrowserContext] = []

    def open_(path: str, user: User | None = None, *, width: int = 1280, javascript: bool = True) -> Page:
        context = browser.new_context(
            base_url=live_server.url, viewport={"width": width, "height": 800}, java_script_enabled=javascript
        )
        contexts.append(context)
        context.set_default_timeout(5000)
        # The first page of a process loads the AWS service models.
        context.set_default_navigation_timeout(20000)
        if user is not None:
            session = client_for(user).cookies["sessionid"].value
            context.add_cookies([{"name": "sessionid", "value": session, "url": live_server.url}])
        page = context.new_page()
        guard.watch(page)
        page.goto(path)
        return page

    yield open_
    for context in contexts:
        context.close()
    wait_until_the_server_is_quiet()


def wait_until_the_server_is_quiet() -> None:
    """Wait for the last request of a polling page, whose queries could deadlock with emptying the tables."""
    busy = """SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"""
    quiet = 0
    for _ in range(200):
        with connection.cursor() as cursor:
            cursor.execute(busy)
            quiet = quiet + 1 if cursor.fetchone() == (0,) else 0
        if quiet == 3:
            return
        time.sleep(0.05)
    raise AssertionError("requests of a closed page still run after 10 seconds")


def violations(page: Page, *, rules: list[str] | None = None) -> list[str]:
    """Return axe's violations of WCAG 2.2 AA (or only of these rules), one line each."""
    run_only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": WCAG}
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    found: list[str] = page.evaluate(RUN_AXE, {"runOnly": run_only, "resultTypes": ["violations"]})
    return found


def keep_screenshot(page: Page, name: str) -> None:
    """Keep a picture of the whole page in the folder SCREENSHOTS, by name, theme and width, if it is set (`make pages`)."""
    folder = os.environ.get("SCREENSHOTS")
    if not folder or page.viewport_size is None:
        return
    theme = "dark" if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
    named = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "start"
    path = Path(folder) / f"{named[:100]}-{theme}-{page.viewport_size['width']}.png"
    page.screenshot(path=path, full_page=True)


def scrolls_sideways(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
