"""The HTML report as a browser shows it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_joules.digest import Digest, rows_of
from pytest_joules.report import html
from pytest_joules.result import Reason
from tests.fakes.digests import launch, of_stack, sweep
from tests.fakes.results import make_comparison, make_result

PLOTS = ("plot-batch", "plot-frontier", "plot-timeline", "plot-lengths", "plot-causes")
DRAWN = "html[data-drawn=yes]"
MARKS = """plot => [...document.querySelectorAll(
    `#${plot} .lines path.js-line, #${plot} .points path, #${plot} .point path`
)].map(mark => mark.getBBox()).map(box => ({width: box.width, height: box.height}))"""
FOCUSED = """() => {
    const here = document.activeElement;
    return here.id || here.tagName + here.textContent;
}"""
PHONE = {"width": 390, "height": 844}
SCREENSHOT = os.environ.get("JOULES_SCREENSHOT", "")
"""Where to keep the picture for the documentation; empty keeps none."""

EVIL = (
    "<img src=x onerror=\"document.title='owned'\"><b>x</b>{{7*7}}</script>"
    "<script>alert(1)</script>"
)


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as expecting  # noqa: PLC0415  not in the test extra

    return expecting(locator)


class Opened:
    """A page of the report, and what it complained about or asked for."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.page = browser.new_page(**context)
        self.page.set_default_timeout(120_000)  # on a busy machine the page takes long to draw
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.trouble.append(said.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(DRAWN, state="attached")

    def column(self, number: int) -> list[str]:
        script = """number => [...document.querySelectorAll('#table tbody tr')]
            .filter(row => !row.hidden).map(row => row.cells[number].textContent)"""
        return self.page.evaluate(script, number)


@pytest.fixture(scope="session")
def path(folder: Path) -> Path:
    html.write(folder / "report.html", sweep(48))
    return folder / "report.html"


@pytest.fixture(scope="module")
def seen(browser: Any, path: Path) -> Iterator[Opened]:
    """The report for those who only look at it: drawing takes seconds."""
    made = Opened(browser, path, viewport={"width": 1280, "height": 900})
    yield made
    made.page.close()


@pytest.fixture
def opened(browser: Any, path: Path) -> Iterator[Opened]:
    made = Opened(browser, path, viewport={"width": 1280, "height": 900})
    yield made
    made.page.close()


def test_it_opens_without_complaint_or_request(seen: Opened, path: Path) -> None:
    assert seen.trouble == []
    assert seen.requests == [path.as_uri()]
    assert seen.page.locator("#trouble").text_content() == ""


@pytest.mark.parametrize("plot", PLOTS)
def test_each_plot_is_drawn(seen: Opened, plot: str) -> None:
    """Each shows marks of its own inside its axes, not only a frame."""
    marks = seen.page.evaluate(MARKS, plot)

    assert [mark for mark in marks if mark["width"] > 1 or mark["height"] > 1]
    assert seen.page.locator(f"#{plot} .main-svg").first.bounding_box()["height"] > 200


def test_the_window_is_shaded_and_every_panel_is_there(seen: Opened) -> None:
    timeline = seen.page.locator("#plot-timeline")

    shade = timeline.locator(".shape-group path").bounding_box()
    assert 300 < shade["width"] < 900  # 60 of 100 s
    titles = timeline.locator("text[class^=y][class$=title]").all_text_contents()
    assert titles == ["Power, W", "Running batch", "KV cache, share", "Hottest GPU, °C"]


def test_frontier_points_are_labelled_by_batch_and_the_pareto_set_is_marked(
    seen: Opened,
) -> None:
    frontier = seen.page.locator("#plot-frontier")

    labels = frontier.locator(".textpoint").all_text_contents()
    assert {"8", "16", "1024"} <= set(labels)
    assert "Pareto set" in frontier.locator(".legendtext").all_text_contents()


def test_the_table_sorts_by_each_column(opened: Opened) -> None:
    heads = opened.page.locator("#table thead th")
    for number in range(heads.count()):
        head = heads.nth(number)
        if not head.locator("button").count():
            continue
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        rising = opened.column(number)
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        falling = [cell for cell in opened.column(number) if cell]
        assert falling == [cell for cell in rising if cell][::-1] or len(set(rising)) < len(
            rising
        )


def test_numbers_sort_as_numbers_and_unknown_ones_stay_last(opened: Opened) -> None:
    opened.page.get_by_role("button", name="Change", exact=True).click()

    told = [float(cell.split()[0]) for cell in opened.column(2) if cell]
    assert told == sorted(told)
    assert opened.column(2)[-1] == ""
    opened.page.get_by_role("button", name="Batch", exact=True).click()
    batches = [int(cell) for cell in opened.column(7)]
    assert batches == sorted(batches)


def test_the_table_filters_by_words_and_by_verdict(opened: Opened) -> None:
    opened.page.fill("#filter", "FP8 4gpu")
    assert opened.column(0)
    assert all("fp8-4gpu" in cell for cell in opened.column(0))

    opened.page.select_option("#verdict", "regression")
    assert set(opened.column(1)) == {"regression"}
    shown = opened.page.locator("#shown").text_content()
    assert shown.startswith(f"{len(opened.column(1))} of ")

    opened.page.fill("#filter", "no such thing")
    assert opened.column(0) == []


def test_choosing_a_point_redraws_its_launch(opened: Opened) -> None:
    before = opened.page.locator("#plot-timeline .ytick").all_text_contents()

    opened.page.locator("#table a").last.click()

    assert opened.page.locator("#which").input_value() == str(len(opened.column(0)) - 1)
    expect(opened.page.locator("#plot-causes")).to_be_hidden()
    assert opened.page.locator("#no-causes").text_content().startswith("None were looked for")
    after = opened.page.locator("#plot-timeline .ytick").all_text_contents()
    assert before != after


def test_the_keyboard_reaches_all_controls(opened: Opened) -> None:
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.className") == "skip"
    names = set()
    for _ in range(300):
        opened.page.keyboard.press("Tab")
        name = opened.page.evaluate(FOCUSED)
        names.add(name)
        if name == "which":
            break
    wanted = {"filter", "verdict", "family", "which"}
    heads = {
        f"BUTTON{each}" for each in opened.page.locator("thead button").all_text_contents()
    }
    links = {f"A{each}" for each in opened.page.locator("#table a").all_text_contents()}
    assert wanted | heads | links <= names


def test_tab_reaches_each_chart_and_then_its_numbers(opened: Opened) -> None:
    for plot in PLOTS:
        opened.page.locator(f"#{plot}").focus()
        opened.page.keyboard.press("Tab")
        opened.page.keyboard.press("Enter")

        rows = opened.page.locator(f"details[data-of={plot}] tbody tr")
        expect(rows.first).to_be_visible()
        marks = opened.page.evaluate(MARKS, plot)
        assert rows.count() >= min(len(marks), 3)
        opened.page.keyboard.press("Shift+Tab")
        assert opened.page.evaluate("document.activeElement.id") == plot


def test_arrow_keys_step_through_a_chart_and_enter_shows_a_launch(opened: Opened) -> None:
    said, tip = opened.page.locator("#said"), opened.page.locator("#plot-batch .hovertext")
    opened.page.locator("#plot-batch").focus()

    opened.page.keyboard.press("ArrowRight")
    first = said.text_content()
    expect(tip).to_be_visible()
    assert "Batch size 8; Energy, J/token " in first
    opened.page.keyboard.press("ArrowRight")
    assert "Batch size 16; " in said.text_content()
    opened.page.keyboard.press("ArrowLeft")
    assert said.text_content() == first
    opened.page.keyboard.press("ArrowDown")
    assert said.text_content().split(";")[0] != first.split(";")[0]
    opened.page.keyboard.press("End")
    assert "Batch size 1024; " in said.text_content()

    opened.page.keyboard.press("Enter")
    chosen = opened.page.locator("#which option:checked").text_content()
    name = said.text_content().removeprefix("The launch of ").split(" is shown")[0]
    assert chosen.startswith(name)
    assert "b1024" in name


def test_every_point_of_the_charts_is_in_their_tables(opened: Opened) -> None:
    opened.page.locator("details[data-of=plot-causes] summary").click()
    shares = opened.page.locator("details[data-of=plot-causes] tbody tr").all_text_contents()
    opened.page.locator("details[data-of=plot-batch] summary").click()
    table = opened.page.locator("details[data-of=plot-batch] tbody")

    assert shares[-1].startswith("Change of ln(energy), %total")
    family = opened.page.locator("#family option:checked").text_content().split(", ")[0]
    of_family = [cell for cell in opened.column(10) if cell == family]
    assert table.locator("tr").count() == len(of_family)
    assert "reference " in table.text_content()


def test_a_head_is_sorted_by_the_keyboard(opened: Opened) -> None:
    opened.page.get_by_role("button", name="Energy", exact=True).focus()
    opened.page.keyboard.press("Enter")

    assert opened.page.locator("th[aria-sort=ascending]").text_content().strip() == "Energy"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, PHONE["width"]])
def test_axe_finds_no_violation(browser: Any, path: Path, *, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415  not in test

    viewport = {"width": width, "height": 900}
    # The page's policy lets no script in, axe's own neither.
    opened = Opened(browser, path, color_scheme=scheme, viewport=viewport, bypass_csp=True)

    found = Axe().run(opened.page)

    told = [
        (each["id"], each["nodes"][0]["html"][:200]) for each in found.response["violations"]
    ]
    assert told == []
    opened.page.close()


def test_a_phone_scrolls_only_up_and_down(browser: Any, path: Path) -> None:
    opened = Opened(browser, path, viewport=PHONE)

    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    assert opened.trouble == []
    opened.page.close()


def test_dark_plots_are_dark_and_print_is_light(browser: Any, path: Path) -> None:
    opened = Opened(browser, path, color_scheme="dark")
    plot = expect(opened.page.locator("#plot-batch .main-svg").first)

    plot.to_have_css("background-color", "rgb(21, 23, 26)")
    opened.page.emulate_media(media="print", color_scheme="light")
    plot.to_have_css("background-color", "rgb(255, 255, 255)")
    assert not opened.page.locator("#filter").is_visible()
    assert opened.page.pdf().startswith(b"%PDF")
    opened.page.close()


def test_hostile_names_are_inert(browser: Any, folder: Path) -> None:
    names = [EVIL, "javascript:alert(1)", "\x1b[31mred\x1b[0m\n=1+1", "<b>" * 3400]
    results = [
        of_stack(launch(make_result(model=name, gpu=name).point, 1.0), name, **{name: name})
        for name in names
    ]
    old = [of_stack(each, "old") for each in results]
    compared = {
        each.point: make_comparison(each.point, reference="old", explanation=EVIL)
        for each in results
    }
    broken = of_stack(make_result(reasons=(Reason(code=EVIL, text=EVIL),)), EVIL)
    digest = Digest(
        settings={"gpu": EVIL, "stack": EVIL, "plugin": EVIL},
        rows=rows_of([*results, *old, broken], compared),
    )
    html.write(folder / "hostile.html", digest)

    opened = Opened(browser, folder / "hostile.html", viewport=PHONE)

    for index in range(len(digest.rows)):
        opened.page.select_option("#which", str(index))
    assert opened.trouble == []
    assert len(opened.requests) == 1
    assert opened.page.title().startswith("Energy report")
    assert opened.page.locator("img, b, iframe").count() == 0
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert "{{7*7}}" in opened.page.locator("#table").text_content()
    opened.page.close()


def test_500_points_stay_under_6_mb_and_open(browser: Any, folder: Path) -> None:
    html.write(folder / "large.html", sweep(500, launches=4))

    assert (folder / "large.html").stat().st_size < 6e6
    opened = Opened(browser, folder / "large.html")
    assert opened.trouble == []
    assert len(opened.column(0)) > 500
    opened.page.close()


def test_a_picture_for_the_documentation(browser: Any, folder: Path) -> None:
    html.write(folder / "small.html", sweep(8))
    opened = Opened(browser, folder / "small.html", viewport={"width": 1000, "height": 700})
    target = Path(SCREENSHOT or folder / "report.png")

    opened.page.screenshot(path=target, full_page=True)

    assert target.read_bytes().startswith(b"\x89PNG")
    opened.page.close()
