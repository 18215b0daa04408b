"""Fixtures: a real browser, a fake app, and pages whose errors fail the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.browser.fake import FakeApp
from tests.browser.support import ARGUMENTS, HARMLESS, SCREENSHOTS, Open, chromium


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    """Start the system's chromium with an empty profile."""
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is missing: the group `browser` has it")
    path = chromium()
    if path is None:
        pytest.skip("chromium is not installed: `.ci/browser` installs it")
    async with playwright.async_playwright() as driver:
        started = await driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        await started.close()


@pytest.fixture
async def app() -> AsyncIterator[FakeApp]:
    """Start a fake app without works."""
    fake = FakeApp()
    await fake.open()
    yield fake
    await fake.aclose()


@pytest.fixture
async def open_page(browser: Any, request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Return a function that opens a page at an address and a place. An error in the page's console fails the test."""
    problems: list[str] = []
    contexts = []

    async def opened(url: str, place: str = "#/", *, width: int = 1280, height: int = 800, theme: str = "light") -> Any:
        context = await browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        contexts.append(context)
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = await context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: _note(problems, said))
        await page.goto(url + place)
        # If a change of the machine's network aborts the page, the page reloads itself: wait until it has started.
        await page.wait_for_selector("[data-page]", state="attached")
        return page

    yield opened
    for number, context in enumerate(contexts):
        for page in context.pages:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            name = request.node.name.removeprefix("test_").replace("/", "-")
            await page.screenshot(path=SCREENSHOTS / f"{name}{f'-{number}' if number else ''}.png")
        await context.close()
    assert problems == []


def _note(problems: list[str], said: Any) -> None:
    if said.type in ("error", "warning") and not said.text.startswith(HARMLESS):
        problems.append(said.text)
