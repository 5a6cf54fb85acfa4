"""A page that nobody sees does not refresh itself, so that it does not keep the session alive."""

import pytest

from tests.browser.conftest import OpenPage
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SET_HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_tab_asks_for_nothing_until_it_is_seen(cast: Cast, open_page: OpenPage) -> None:
    make_deployment(cast, make_agent(cast), "ready")
    page = open_page("/account/", cast.operator)
    page.clock.install()
    page.goto("/o/acme/deployments/")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    with page.expect_request(lambda request: "/o/acme/deployments/" in request.url):
        page.clock.run_for(60_000)
    page.wait_for_load_state("networkidle")
    page.evaluate(SET_HIDDEN, True)
    asked.clear()
    page.clock.run_for(120_000)
    page.evaluate("() => 0")  # a round trip: requests before it are known
    hidden = list(asked)
    with page.expect_request(lambda request: "/o/acme/deployments/" in request.url):
        page.evaluate(SET_HIDDEN, False)

    assert hidden == []
