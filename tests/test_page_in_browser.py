"""Pages in a real browser: no error and no request, numbers under the pointer, switches, tables, any width.

Needs Debian's packages chromium and chromium-driver; skipped where they are not installed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from benchmarks.analysis import wording
from tests import pages
from tests.browser import AT, BROWSER, CUT, DRIVER, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="no browser: apt-get install chromium chromium-driver"
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = Browser()
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pages.report(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, page: Path) -> dict[str, Path]:
    """A page of each kind."""
    folder = tmp_path_factory.mktemp("made")
    return {
        "report": page,
        "hostile": pages.report(folder, hostile=True),
        "comparison": pages.comparison(folder),
        "history": pages.history(folder),
        "card": pages.published(folder / "h100", "nvidia-h100", "run-*.json.gz"),
        "crowd": pages.published(folder / "crowd", "nvidia-h100-every-kernel"),
    }


KINDS = ("report", "hostile", "comparison", "history", "card", "crowd")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_loads_without_an_error_and_asks_for_nothing(
    browser: Browser, made: dict[str, Path], kind: str
) -> None:
    browser.open(made[kind])
    for tab in browser.all(".tabs > label"):
        tab.click()
        browser.wait_for_plots()
    assert browser.errors() == []
    outside = [
        url for url in browser.requests() if url != made[kind].as_uri() and not url.startswith("data:")
    ]
    assert outside == []


@pytest.mark.parametrize("name", ["linear-chunked", "standard-sdpa"])
def test_the_pointer_is_told_the_time_that_the_csv_holds(browser: Browser, page: Path, name: str) -> None:
    browser.open(page)
    found = browser.point_at("plot-0-0", name, 2)
    rows = csv.DictReader((page.parent / "complexity_analysis.csv").read_text().splitlines())
    (case,) = [
        row
        for row in rows
        if row["seq_len"] == str(int(found["length"]))
        and (row["kernel"], row["mode"], row["phase"]) == (name, "bidirectional", "forward")
        and row["subject"] == "operator"
    ]
    told = browser.tooltip()
    low, high = (wording.seconds(float(case[f"interval_{end}_s"])) for end in ("low", "high"))
    for words in (
        name,
        wording.seconds(float(case["median_s"])),
        f"{low} to {high}",
        f"{case['rounds']} in",
    ):
        assert words in told


def test_a_click_on_a_point_shows_the_record_of_its_case(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.point_at("plot-0-0", "linear-chunked", 1)
    ActionChains(browser.driver).click().perform()
    record = browser.find("#record")
    assert record.is_displayed()
    assert "linear-chunked/bidirectional/forward" in browser.find("#record-title").text
    assert "median_s" in record.text and "peak_bytes" in record.text
    ActionChains(browser.driver).send_keys(Keys.ESCAPE).perform()
    assert not record.is_displayed()


def test_a_kernel_is_switched_off_in_every_plot_and_on_again(browser: Browser, page: Path) -> None:
    browser.open(page)
    box = browser.find(".panel [data-kernel='linear-chunked']")
    for off in (True, False):
        browser.script("arguments[0].scrollIntoView({block: 'center'})", box)
        box.click()
        shown = [browser.script(AT, f"plot-0-{index}", "linear-chunked", 0)["visible"] for index in (0, 1, 6)]
        assert shown == [not off] * 3
        browser.point_at("plot-0-0", "linear-chunked", 0)
        assert ("linear-chunked" in browser.tooltip()) is not off


def test_axes_are_switched_between_logarithmic_and_linear(browser: Browser, page: Path) -> None:
    browser.open(page)
    ask = (
        "const plot = drawn.get('plot-0-0');return [plot.x_scale.type, plot.y_scale.type, plot.y_range.start]"
    )
    x, y, start = browser.script(ask)
    assert (x, y) == ("LogScale", "LogScale") and start > 0
    browser.find(".panel [data-axis='y']").click()
    browser.wait_for_plots()
    assert browser.script(ask) == ["LogScale", "LinearScale", 0]
    browser.point_at("plot-0-0", "linear-chunked", 4)
    assert "linear-chunked" in browser.tooltip()
    browser.find(".panel [data-axis='y']").click()
    assert browser.script(ask) == [x, y, start]


def test_a_table_is_sorted_by_its_numbers_and_filtered_by_its_words(browser: Browser, page: Path) -> None:
    browser.open(page)
    grid = browser.find(".panel .grid")
    (head,) = [one for one in grid.find_elements(By.CSS_SELECTOR, "th button") if one.text == "median time"]
    ask = (
        "return [...arguments[0].querySelectorAll('tbody tr')].filter(row => !row.hidden)"
        ".map(row => row.cells[3].dataset.value).filter(Boolean).map(Number)"
    )
    for direction, ordered in (("ascending", sorted), ("descending", lambda x: sorted(x, reverse=True))):
        head.click()
        times = browser.script(ask, grid)
        assert len(times) == 30 and times == ordered(times)
        assert head.find_element(By.XPATH, "..").get_attribute("aria-sort") == direction
    grid.find_element(By.CSS_SELECTOR, "input").send_keys("causal chunked")
    assert len(browser.script(ask, grid)) == 5
    assert grid.find_element(By.CSS_SELECTOR, "output").text == "5 of 31 rows"


def test_everything_is_reached_by_the_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    first, second = browser.all(".tabs > input")[:2]
    browser.script("arguments[0].focus()", first)
    ActionChains(browser.driver).send_keys(Keys.ARROW_RIGHT).perform()
    assert second.is_selected()
    browser.wait_for_plots()
    assert browser.find("#plot-1-0").is_displayed() and not browser.find("#plot-0-0").is_displayed()
    browser.find("a[href='#tables-1']").send_keys(Keys.ENTER)
    seen = set()
    for _ in range(20):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        focused = browser.driver.switch_to.active_element
        seen.add((focused.tag_name, focused.get_attribute("type")))
        if focused.get_attribute("data-record"):
            break
    assert {("input", "search"), ("button", "button")} <= seen
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    assert browser.find("#record").is_displayed()
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    assert not browser.find("#record").is_displayed()
    box = browser.all(".panel")[1].find_element(By.CSS_SELECTOR, "[data-kernel]")
    browser.script("arguments[0].focus()", box)
    ActionChains(browser.driver).send_keys(Keys.SPACE).perform()
    assert not box.is_selected()


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_cut(browser: Browser, made: dict[str, Path], kind: str, width: int) -> None:
    browser.open(made[kind], width)
    for details in browser.all("details"):
        browser.script("arguments[0].open = true", details)
    for tab in browser.all(".tabs > label"):
        browser.script("arguments[0].click()", tab)
        browser.wait_for_plots()
        assert browser.script(CUT) == []


def test_hostile_texts_stay_texts(browser: Browser, made: dict[str, Path]) -> None:
    browser.open(made["hostile"])
    for tab in browser.all(".tabs > label"):
        tab.click()
        browser.wait_for_plots()
    for name in pages.HOSTILE:
        found = browser.script(
            "return [...document.querySelectorAll('.panel [data-kernel]')].map(one => one.dataset.kernel)"
        )
        assert name in found
    browser.all(".tabs > label")[0].click()
    ask = "return [...drawn.get('plot-0-0').renderers].filter(one => one.glyph.type === 'Scatter')"
    names = browser.script(f"{ask}.map(one => one.data_source.data.name[0])")
    for name in names:
        browser.point_at("plot-0-0", name, 1)
        assert " ".join(name.split()) in browser.tooltip()
    ask = "return [window.broken, document.images.length, document.scripts.length]"
    assert browser.script(ask) == [None, 0, 4]  # the library is the fourth
    assert browser.errors() == []
