"""The page in a real browser, with a fake app that the test controls."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.browser.fake import ERROR, HOSTILE, FakeApp, fill
from tests.browser.support import SCREENSHOTS, Open

expect = pytest.importorskip("playwright.async_api", reason="playwright is missing: the group `browser` has it").expect
expect.set_options(timeout=30_000)  # long, so that a busy machine does not fail the test


STAGES = ["running", "succeeded", "pending", "failed", "stopped"]

PLACES = ["overview", "works", "logs", "state", "timeline", "schedules", "runtimes"]


UP_OR_DONE = """() => document.querySelector(".log-lines").scrollTop > 0
    || document.querySelector(".log-line").textContent.endsWith("line 0")"""


def row(page: Any, name: str) -> Any:
    """Return the row of a work in the list."""
    return page.locator(f'.work-row[href="#/works/{name}"]')


async def confirm(page: Any, label: str) -> None:
    """Press a button of the open dialog."""
    await page.locator("dialog").get_by_role("button", name=label, exact=True).click()


def value(page: Any, path: str) -> Any:
    """Return the row of an attribute in the state tree."""
    return page.locator(f'[data-path="{path}"]')


async def test_the_overview_counts_works_and_shows_what_failed(app: FakeApp, open_page: Open) -> None:
    """The overview counts works by status, and a failed call leads to its traceback."""
    for number in range(18):
        app.add_work(f"root.trials.{number}", stage=("running", "failed", "succeeded")[number % 3])
    app.call(1, "root.trials.1", "failed", started_at=app.started, ended_at=app.started + 3, error=ERROR)
    page = await open_page(app.url)
    await expect(page.locator(".tile.stage-failed .tile-number")).to_have_text("6")
    app.change_work("root.trials.0", stage="failed")
    await expect(page.locator(".tile.stage-failed .tile-number")).to_have_text("7")
    await expect(page).to_have_title("(7 failed) sweep · lightwork")
    await page.get_by_role("link", name="1", exact=True).click()
    await expect(page.locator(".traceback pre")).to_contain_text('raise ValueError("loss is nan")')
    await expect(page.locator(".traceback-head")).to_have_text("ValueError: loss is nan")


async def test_a_change_of_a_work_is_seen_in_its_row(app: FakeApp, open_page: Open) -> None:
    """The list shows when a work is added, changes and is removed."""
    app.add_work("root.train")
    page = await open_page(app.url, "#/works")
    await expect(row(page, "root.train")).to_contain_text("running")
    app.change_work("root.train", stage="failed", reason="oom")
    await expect(row(page, "root.train")).to_contain_text("failed")
    await expect(row(page, "root.train")).to_contain_text("oom")
    app.add_work("root.more.0")
    app.tell(
        {"t": "added", "name": "root.more.0", "kind": "work", "type": "Train"},
        {"t": "work", **app.works["root.more.0"]},
    )
    await expect(row(page, "root.more.0")).to_be_visible()
    app.tell({"t": "removed", "name": "root.more.0", "kind": None, "type": None})
    await expect(row(page, "root.more.0")).to_have_count(0)


async def test_stopping_a_work_asks_first(app: FakeApp, open_page: Open) -> None:
    """A work is stopped only after the user has confirmed it."""
    app.add_work("root.train")
    page = await open_page(app.url, "#/works/root.train")
    await page.get_by_role("button", name="Stop", exact=True).click()
    await confirm(page, "Cancel")
    await expect(page.locator("dialog")).to_have_count(0)
    assert app.asked == []
    await page.get_by_role("button", name="Stop", exact=True).click()
    await confirm(page, "Stop work")
    await expect(page.locator(".work-title")).to_contain_text("stopped")
    assert [(method, path) for method, path, _ in app.asked] == [("POST", "/api/v1/works/root.train/stop")]
    await expect(page.get_by_role("button", name="Start")).to_be_visible()


async def test_a_work_is_called_with_arguments(app: FakeApp, open_page: Open) -> None:
    """Arguments are sent as JSON; a missing required argument and invalid JSON are reported before anything is sent."""
    app.add_work("root.train")
    page = await open_page(app.url, "#/works/root.train")
    await page.get_by_role("button", name="Call…").click()
    await confirm(page, "Call")
    await expect(page.locator("dialog .problem")).to_have_text("epochs is required")
    await page.locator('[name="arg:epochs"]').fill("many")
    await confirm(page, "Call")
    await expect(page.locator("dialog .problem")).to_contain_text(
        'epochs must be JSON, got many. Write text in quotes: "many"'
    )
    await page.locator('[name="arg:epochs"]').fill("30")
    await confirm(page, "Call")
    await expect(page.locator("dialog")).to_have_count(0)
    assert app.asked == [("POST", "/api/v1/works/root.train/calls", {"args": [], "kwargs": {"epochs": 30}})]
    await expect(page).to_have_url(re.compile(r"#/works/root.train/calls/1$"))
    app.call(1, "root.train", "succeeded", result={"loss": 0.5}, started_at=app.started, ended_at=app.started + 1)
    await expect(page.locator(".work-body")).to_contain_text('"loss": 0.5')


async def test_calls_are_cancelled_and_made_again(app: FakeApp, open_page: Open) -> None:
    """A running call can be cancelled; an ended call can be retried, or made again with other arguments."""
    app.add_work("root.train")
    app.call(1, "root.train", "running", started_at=app.started)
    page = await open_page(app.url, "#/works/root.train/calls/1")
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await confirm(page, "Cancel call")
    await page.get_by_role("button", name="Retry", exact=True).click()
    await expect(page).to_have_url(re.compile(r"/calls/2$"))
    app.call(2, "root.train", "succeeded", ended_at=app.started)
    await page.get_by_role("button", name="Edit and call…").click()
    await expect(page.locator('[name="arg:epochs"]')).to_have_value("10")
    await page.locator('[name="arg:epochs"]').fill("11")
    await confirm(page, "Call")
    await expect(page).to_have_url(re.compile(r"/calls/3$"))
    assert [path for _, path, _ in app.asked] == [
        "/api/v1/calls/1/cancel",
        "/api/v1/calls/1/retry",
        "/api/v1/works/root.train/calls",
    ]
    assert app.asked[-1][2] == {"args": [], "kwargs": {"epochs": 11}}


async def test_state_follows_and_is_edited(app: FakeApp, open_page: Open) -> None:
    """The state tree shows changes as they arrive; an edit is sent with its path, and a refusal is shown."""
    page = await open_page(app.url, "#/state")
    await expect(value(page, "root.epochs")).to_contain_text("60")
    app.edit("root", ["epochs"], 61)
    await expect(value(page, "root.epochs")).to_contain_text("61")
    await expect(value(page, "root.epochs").locator(".lit-a, .lit-b")).to_have_count(1)
    await value(page, "root.epochs").dblclick()
    await page.keyboard.type("7e")
    await page.keyboard.press("Enter")
    await expect(page.locator(".editor-error")).to_contain_text("Not valid JSON")
    await page.locator(".editor input").fill("70")
    await page.keyboard.press("Enter")
    await expect(value(page, "root.epochs")).to_contain_text("70")
    assert app.asked == [("PATCH", "/api/v1/state/root", {"edits": [{"path": ["epochs"], "value": 70}]})]
    app.refusals["root"] = "root.epochs must not exceed 100"
    await value(page, "root.epochs").dblclick()
    await page.locator(".editor input").fill("1000")
    await page.keyboard.press("Enter")
    await expect(page.locator(".notice.error")).to_contain_text("must not exceed 100")
    await expect(value(page, "root.epochs")).to_contain_text("70")


async def test_containers_are_opened_edited_whole_and_changed_in_part(app: FakeApp, open_page: Open) -> None:
    """A splice, a set and a delete deep in the state are shown in place; a container is edited as JSON."""
    app.vars["root"]["table"] = {"a": [1, 2, 3], "gone": True}
    page = await open_page(app.url, "#/state")
    await value(page, "root.table").click()
    await value(page, "root.table.a").click()
    app.edit("root", ["table", "a"], [1, 1, [20, 21]], "splice")
    app.edit("root", ["table", "gone"], None, "delete")
    app.edit("root", ["table", "new"], {"$float": "nan"})
    await expect(value(page, "root.table.a.2")).to_contain_text("21")
    await expect(value(page, "root.table.a.3")).to_contain_text("3")
    await expect(value(page, "root.table.gone")).to_have_count(0)
    await expect(value(page, "root.table.new")).to_contain_text("nan")
    await value(page, "root.table.a").hover()
    await page.get_by_role("button", name="Edit a", exact=True).click()
    await page.locator("dialog textarea").fill("[5]")
    await confirm(page, "Save")
    await expect(page.locator("dialog")).to_have_count(0)
    assert app.asked[-1][2] == {"edits": [{"path": ["table", "a"], "value": [5]}]}


async def test_a_number_of_the_state_is_charted(app: FakeApp, open_page: Open) -> None:
    """A numeric attribute is charted on a canvas, and the caption shows the latest number."""
    app.add_work("root.train")
    page = await open_page(app.url, "#/state")
    await page.locator(".component-row", has_text="train").click()
    await value(page, "root.train.loss").hover()
    await page.get_by_role("button", name="Chart loss", exact=True).click()
    await expect(page.locator(".pinned-chart canvas")).to_be_visible()
    for step in range(1, 30):
        app.edit("root.train", ["loss"], 1 / step)
    await expect(page.locator(".pinned-chart figcaption")).to_contain_text("0.034483")


async def test_logs_follow_search_and_fill_what_came_too_fast(app: FakeApp, open_page: Open) -> None:
    """The log scrolls to new lines; a search finds old and new lines; lines that the feed left out are fetched."""
    app.add_work("root.train")
    app.log("root.train", *(f"old {number}" for number in range(3000)))
    page = await open_page(app.url, "#/works/root.train/logs")
    lines = page.locator(".log-line")
    await expect(lines.last).to_contain_text("old 2999")
    app.drop = 500
    app.log("root.train", *(f"fast {number}" for number in range(600)))
    await expect(lines.last).to_contain_text("fast 599")
    log = page.locator(".log-lines")
    await log.evaluate("box => { box.scrollTop = 990 * 18; }")  # after the 1,000 that were loaded
    await expect(page.locator(".log-line", has_text=re.compile("fast 10$"))).to_be_visible()
    await expect(page.locator(".log-gap")).to_have_count(0)
    await page.get_by_role("button", name="Follow").click()
    await page.get_by_label("Search the log").fill("OLD 12")
    await expect(page.locator(".log-count")).to_have_text("111 lines match")
    app.log("root.train", "old 12 again", "something else")
    await expect(lines.last).to_contain_text("old 12 again")
    await expect(page.locator("mark").last).to_have_text("old 12")
    await expect(page).to_have_url(re.compile("search=OLD"))


async def test_older_lines_come_when_they_are_scrolled_to(app: FakeApp, open_page: Open) -> None:
    """Scrolling up loads older lines; a button with the number of new lines leads back to the end."""
    app.add_work("root.train")
    app.log("root.train", *(f"line {number}" for number in range(2500)))
    page = await open_page(app.url, "#/logs")
    log = page.locator(".log-lines")
    await expect(page.locator(".log-line").last).to_contain_text("line 2499")
    for _ in range(4):
        await log.evaluate("box => { box.scrollTop = 0; }")
        await page.wait_for_function(UP_OR_DONE)
    await log.evaluate("box => { box.scrollTop = 0; }")
    await expect(page.locator(".log-line").first).to_contain_text(re.compile("line 0$"))
    app.log("root.train", "new one", "new two")
    await page.get_by_role("button", name="2 new, follow").click()
    await expect(page.locator(".log-line").last).to_contain_text("new two")


async def test_a_cut_connection_is_shown_and_healed(app: FakeApp, open_page: Open) -> None:
    """The page reports that the server is gone; when the server is back, the page resumes with the missed changes."""
    app.add_work("root.train")
    page = await open_page(app.url, "#/works")
    await expect(page.locator(".connection")).to_have_text("live")
    await app.aclose()
    await expect(page.locator(".banner")).to_contain_text("The connection to the app is lost")
    app.tell({"t": "work", **app.works["root.train"], "stage": "succeeded"})
    app._flush()
    await app.open()
    await expect(page.locator(".connection")).to_have_text("live")
    await expect(page.locator(".banner")).to_have_count(0)
    await expect(row(page, "root.train")).to_contain_text("succeeded")


async def test_another_run_is_noticed(app: FakeApp, open_page: Open) -> None:
    """The page reports that the server is back with another run, and shows nothing of the old run."""
    app.add_work("root.before")
    page = await open_page(app.url, "#/works")
    await expect(row(page, "root.before")).to_be_visible()
    await app.aclose()
    other = FakeApp(run="run-2")
    other.port = app.port
    other.add_work("root.after")
    await other.open()
    try:
        await expect(row(page, "root.after")).to_be_visible()
        await expect(row(page, "root.before")).to_have_count(0)
        await expect(page.locator(".banner")).to_contain_text("The app was restarted")
        await page.get_by_role("button", name="Understood").click()
        await expect(page.locator(".banner")).to_have_count(0)
        await page.close()
    finally:
        await other.aclose()


async def test_a_token_is_asked_for(open_page: Open) -> None:
    """Without a token the page asks for it; afterwards it shows the same place, and the address has no token."""
    app = FakeApp(works=3, token="open sesame")
    await app.open()
    try:
        page = await open_page(app.url, "#/works")
        await page.get_by_label("Token").fill("open sesame")
        await page.get_by_role("button", name="Enter").click()
        await expect(row(page, "root.trials.2")).to_be_visible()
        assert page.url == f"{app.url}#/works"
        await page.close()
    finally:
        await app.aclose()


async def test_a_thousand_works(app: FakeApp, open_page: Open) -> None:
    """Of 1,000 works only the visible ones are in the document; the filter and the keyboard reach every work."""
    for number in range(1000):
        app.add_work(f"root.trials.{number}", stage="failed" if number == 777 else "running")
    page = await open_page(app.url, "#/works")
    await expect(row(page, "root.trials.0")).to_be_visible()
    assert await page.locator(".work-row").count() < 100
    works = page.locator(".works-list .vlist")
    await works.focus()
    await page.keyboard.press("End")
    await expect(row(page, "root.trials.999")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(page.locator(".work-title h1")).to_have_text("root.trials.999")
    await page.keyboard.press("Escape")
    await expect(page).to_have_url(re.compile("#/works$"))
    await page.locator(".chip", has_text="failed").click()
    await expect(page.locator(".work-row")).to_have_count(1)
    await expect(row(page, "root.trials.777")).to_be_visible()
    await page.locator(".chip", has_text="failed").click()
    await page.keyboard.press("/")
    await page.keyboard.type("root.trials.*5")
    await expect(page.locator(".chips [role=status]")).to_have_text("100 of 1\u202f000")


async def test_texts_of_works_stay_texts(app: FakeApp, open_page: Open) -> None:
    """Markup in names, values, messages, logs, tracebacks and addresses is shown as text and has no effect."""
    app.add_work("root.train", message=HOSTILE, url="javascript:window.hacked=1", type=HOSTILE, hostname=HOSTILE)
    app.vars["root.train"] |= {HOSTILE: HOSTILE, "note": HOSTILE, "__proto__": {"x": HOSTILE}, "deep": _nested(90)}
    app.layout = {
        "root": {"kind": "tabs", "tabs": [{"name": HOSTILE, "content": None, "target": "javascript:parent.hacked=1"}]}
    }
    app.schedules = [{"flow": HOSTILE, "key": HOSTILE, "pattern": HOSTILE, "last": None, "next": 9e9, "is_true": True}]
    error = {"type": HOSTILE, "message": HOSTILE, "traceback": HOSTILE * 100}
    app.call(1, "root.train", "failed", message=HOSTILE, error=error, args={HOSTILE: HOSTILE}, ended_at=app.started)
    app.log("root.train", HOSTILE, HOSTILE * 2000, "\x1b[31m" + HOSTILE, "x" * 300_000)
    page = await open_page(app.url)
    places = ["", *PLACES, "works/root.train/calls/1", "works/root.train/state", "app", "works/%E0%A4%A", HOSTILE]
    for place in places:
        await page.evaluate("place => { location.hash = '#/' + place; }", place)
        await expect(page.locator("main")).to_be_visible()
        await page.wait_for_timeout(100)
        assert await page.evaluate("window.hacked") is None, place
        assert await page.locator("#page img, #page script, iframe, a[href^=javascript]").count() == 0, place
    await page.evaluate("location.hash = '#/works/root.train/state'")
    await expect(value(page, "root.train.note")).to_contain_text("<img src=x onerror=")


def _nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = {"k": [value]}
    return value


async def test_a_stack_is_dumped(app: FakeApp, open_page: Open) -> None:
    """The stack dump of a work shows threads and tasks, innermost frame first."""
    app.add_work("root.train")
    page = await open_page(app.url, "#/works/root.train/stack")
    await expect(page.locator(".frames").first).to_contain_text("MainThread")
    await expect(page.locator(".frames li").first).to_contain_text("sweep.py:14")


async def test_the_apps_own_interfaces_are_tabs_in_sandboxes(app: FakeApp, open_page: Open) -> None:
    """Each interface is a tab with a sandboxed frame; only a frame of another origin gets ``allow-same-origin``."""
    app.layout = {
        "root": {
            "kind": "tabs",
            "target": None,
            "tabs": [
                {"name": "Mine", "content": "root", "target": "/ui/root/"},
                {"name": "Other", "content": None, "target": f"http://localhost:{app.port}/ui/other/"},
                {"name": "Later", "content": "root", "target": None},  # its content is the component that contains it
            ],
        }
    }
    page = await open_page(app.url, "#/app")
    frame = page.locator("iframe")
    await expect(page.frame_locator("iframe").locator("h1")).to_have_text("interface of root")
    assert "allow-same-origin" not in await frame.get_attribute("sandbox")
    await page.get_by_role("link", name="Other").click()
    await expect(page.frame_locator("iframe").locator("h1")).to_have_text("interface of other")
    assert "allow-same-origin" in await frame.get_attribute("sandbox")
    await page.get_by_role("link", name="Later").click()
    await expect(page.locator(".empty-title")).to_have_text("Later has no user interface yet")


async def test_schedules_are_listed_and_triggered(app: FakeApp, open_page: Open) -> None:
    """A schedule shows its pattern, and the button triggers it."""
    fill(app)
    page = await open_page(app.url, "#/schedules")
    await expect(page.locator("tbody tr").first).to_contain_text("0 4 * * *")
    await page.get_by_role("button", name="Trigger").first.click()
    await expect(page.locator(".notice")).to_contain_text("Triggered")
    assert app.asked == [("POST", "/api/v1/schedules/trigger", {"flow": "root", "key": "0 4 * * * sweep.py:31"})]


async def test_the_timeline_leads_to_a_call(app: FakeApp, open_page: Open) -> None:
    """The keyboard selects and opens a call in the timeline."""
    app.add_work("root.train")
    app.call(
        1, "root.train", "succeeded", submitted_at=app.started, started_at=app.started + 1, ended_at=app.started + 9
    )
    app.call(2, "root.train", "running", submitted_at=app.started + 9, started_at=app.started + 10)
    page = await open_page(app.url, "#/timeline")
    timeline = page.get_by_role("application")
    await timeline.press("ArrowDown")
    await timeline.press("ArrowDown")
    await expect(page.locator(".tip")).to_contain_text("call 2")
    await timeline.press("+")
    await timeline.press("Enter")
    await expect(page).to_have_url(re.compile("root.train/calls/2"))


async def test_keys_lead_everywhere(app: FakeApp, open_page: Open) -> None:
    """Digits open a view, / focuses the search, ? lists the keys, Esc closes the list, and t changes the theme."""
    page = await open_page(app.url)
    await expect(page.locator(".tiles")).to_be_visible()
    await page.keyboard.press("4")
    await expect(page).to_have_url(re.compile("#/state$"))
    await page.keyboard.press("/")
    await expect(page.get_by_label("Find in the state")).to_be_focused()
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.locator("dialog")).to_contain_text("close a work, leave a field")
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog")).to_have_count(0)
    await page.keyboard.press("t")
    await page.keyboard.press("t")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


async def test_why_the_app_has_failed_stays_on_the_page(app: FakeApp, open_page: Open) -> None:
    """The page shows the error and the traceback that failed the app, even after the app is gone."""
    page = await open_page(app.url)
    await expect(page.locator(".tiles")).to_be_visible()
    app.tell({"t": "app", **app.app_view(), "stage": "stopping", "error": ERROR})
    banner = page.get_by_role("alert")
    await expect(banner).to_contain_text("The app has failed")
    await app.aclose()
    await expect(page.get_by_text("lost, re")).to_be_visible()
    await banner.get_by_role("button", name="Traceback").click()
    await expect(page.locator("dialog")).to_contain_text(ERROR["type"])


async def test_a_key_is_not_lost_on_a_view_that_is_still_fetched(app: FakeApp, open_page: Open) -> None:
    """If / is pressed while a view is loading, its search is focused when the view is ready."""
    page = await open_page(app.url)
    is_asked, may_come = asyncio.Event(), asyncio.Event()

    async def hold(route: Any) -> None:
        is_asked.set()
        await may_come.wait()
        await route.continue_()

    await page.route(re.compile(r"/state\.js"), hold)
    await page.reload()
    await expect(page.locator(".tiles")).to_be_visible()
    await page.keyboard.press("4")
    await is_asked.wait()
    await page.keyboard.press("/")
    may_come.set()
    await expect(page.get_by_label("Find in the state")).to_be_focused()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
async def test_every_view_fits_its_window(app: FakeApp, open_page: Open, theme: str, width: int) -> None:
    """No view is wider than the window, on a desktop and a phone, with the light and the dark theme."""
    for number in range(100):
        app.add_work(
            f"root.trials.{number}", stage=("running", "succeeded", "pending", "failed", "stopped")[number % 5]
        )
    fill(app)
    page = await open_page(app.url, width=width, height=900, theme=theme)
    for place in [*PLACES, "works/root.trials.2", "works/root.trials.2/calls/5", "works/root.trials.2/stack"]:
        await page.evaluate("place => { location.hash = '#/' + place; }", place)
        await page.wait_for_function("() => document.querySelector('main:not(.waiting)')?.childElementCount > 0")
        await page.wait_for_timeout(250)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, place
        await page.screenshot(path=SCREENSHOTS / f"view-{place.replace('/', '-')}-{theme}-{width}.png")
