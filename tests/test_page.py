"""The page of a report: complete in itself, with every number of the tables, and every text as text."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from benchmarks.analysis import wording
from benchmarks.analysis.page import charts, content, rendering
from benchmarks.analysis.plots.looks import ALSO_CHOSEN, BACKGROUND, CHOSEN, MARKERS, OWN
from benchmarks.analysis.report import writing
from tests.pages import HOSTILE, Parsed, columns, comparison, history, published, report, without_pictures
from tests.synthetic import Law, Run

MOST_BYTES = 6_000_000
CROSSED = "impossible: "
"""How the name of a point begins that its device cannot have reached."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Parsed:
    return Parsed(report(tmp_path_factory.mktemp("page")))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Parsed:
    return Parsed(report(tmp_path_factory.mktemp("hostile"), hostile=True))


def cases(page: Parsed) -> list[dict[str, str]]:
    """The measured cases of the CSV file beside a page."""
    text = (page.path.parent / "complexity_analysis.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return [row for row in rows if row["outcome"] == "measured" and row["subject"] != "ceiling"]


def test_a_page_refers_to_nothing_outside_of_itself(page: Parsed) -> None:
    places = ("src", "href", "action", "data", "poster", "srcset", "background")
    targets = [attributes[name] for _, attributes in page.elements for name in places if name in attributes]
    assert targets and all(str(target).startswith("#") for target in targets)
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert {str(target)[1:] for target in targets} <= ids
    assert not {"link", "iframe", "object", "embed", "base", "img"} & {tag for tag, _ in page.elements}
    style = next(one for one in page.scripts if ":root" in one)
    assert "url(" not in style and "@import" not in style


def test_every_time_of_the_csv_is_a_point_a_cell_and_a_record_of_the_page(page: Parsed) -> None:
    plotted = {
        value for plot in page.data["plots"].values() for column in columns(plot, "y") for value in column
    }
    values = {attributes.get("data-value") for _, attributes in page.elements}
    recorded = {record[page.data["fields"].index("median_s")] for record in page.data["records"]}
    assert len(cases(page)) == 70
    for case in cases(page):
        time = float(case["median_s"])
        assert time in recorded and str(time) in values
        assert time in plotted or case["subject"] == "layer"
    layers = {float(case["rounds_mean_s"]) for case in cases(page) if case["subject"] == "layer"}
    assert layers and layers <= plotted


def test_a_point_says_the_time_the_interval_and_the_record_of_its_case(page: Parsed) -> None:
    plot, fields = page.data["plots"]["plot-0-0"], page.data["fields"]
    names, times, says, records = (columns(plot, name) for name in ("name", "y", "say1", "record"))
    for name, time, said, numbers in zip(names, times[: len(names)], says, records, strict=True):
        for one, value, words, number in zip(name, time, said, numbers, strict=True):
            record = dict(zip(fields, page.data["records"][number], strict=True))
            assert (one.removeprefix(CROSSED), value) == (record["kernel"], record["median_s"])
            assert one == record["kernel"] or record["floor_verdict"] == "impossible"
            assert words == wording.seconds(value)


def test_what_was_left_out_stands_with_its_reason(page: Parsed) -> None:
    assert "out of memory & more" in page.texts


def test_every_control_has_a_name_and_every_plot_an_alternative(page: Parsed) -> None:
    plots = [attributes for tag, attributes in page.elements if attributes.get("class") == "plot"]
    assert plots and all(one["role"] == "img" and one["aria-label"] for one in plots)
    ids = {str(attributes.get("id")) for tag, attributes in page.elements if tag == "input"}
    labelled = {str(attributes["for"]) for tag, attributes in page.elements if "for" in attributes}
    assert labelled <= ids
    assert ("html", {"lang": "en"}) in page.elements


def test_hostile_texts_make_no_element_and_no_attribute(page: Parsed, hostile: Parsed) -> None:
    def kinds(one: Parsed) -> set[tuple[str, ...]]:
        return {(tag, *attributes) for tag, attributes in one.elements}

    assert kinds(hostile) <= kinds(page)
    assert [tag for tag, _ in hostile.elements].count("script") == 3
    texts = set(hostile.texts)
    assert {name for name in HOSTILE if name in texts} == set(HOSTILE)
    named = {name for column in columns(hostile.data["plots"]["plot-0-0"], "name") for name in column}
    assert {name.removeprefix(CROSSED) for name in named} == set(HOSTILE)
    raw = hostile.path.read_text(encoding="utf-8")
    assert not any(name in raw for name in HOSTILE[:3])


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "]]>", "&lt;", "\u2028", "'\"\\"])
def test_json_inside_of_a_script_ends_no_element_and_keeps_its_texts(text: str) -> None:
    written = rendering.script_json({"key": text})
    assert not re.search("[<>&\u2028]", written)
    assert json.loads(written) == {"key": text}


def test_a_page_that_cannot_be_made_costs_the_page_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    path = Run({("linear-a", "causal"): Law(1e-6, 1)}, (256, 512)).write(tmp_path / "run.json")
    monkeypatch.setattr(writing, "report_page", broken)
    with without_pictures():
        written = writing.write_report([path], tmp_path / "out")
    assert "report.html could not be made (ZeroDivisionError)." in written.text
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_comparison_and_a_history_have_their_pages_with_their_verdict_first(tmp_path: Path) -> None:
    pages = Parsed(comparison(tmp_path)), Parsed(history(tmp_path))
    for page in pages:
        assert page.path.exists() and page.data["plots"]
    headings = [next(text for text in page.texts if text.strip()) for page in pages]
    assert headings[0].endswith("slower") and headings[1] == "History"
    told = {
        words for plot in pages[0].data["plots"].values() for one in columns(plot, "say4") for words in one
    }
    assert "slower" in told
    assert any("slower" in text for text in pages[1].texts)


@pytest.mark.slow
def test_the_page_of_the_published_runs_is_small_enough_to_be_sent(tmp_path: Path) -> None:
    page = Parsed(published(tmp_path, "nvidia-h100", "run-*.json.gz"))
    assert page.path.stat().st_size < MOST_BYTES
    tabs = [attributes for tag, attributes in page.elements if attributes.get("name") == "tab"]
    assert len(tabs) == 2 and len(page.data["plots"]) == 20


def test_every_look_of_a_kernel_has_its_marker_and_its_sample() -> None:
    looks = [*CHOSEN.values(), *ALSO_CHOSEN.values(), *OWN]
    markers = {look.marker for look in looks} | set(MARKERS)
    assert all(charts.MARKERS[marker] in rendering.PATHS for marker in markers)
    assert BACKGROUND.marker == ""


def test_energy_is_a_plot_and_a_column_where_it_was_measured(tmp_path: Path, page: Parsed) -> None:
    content = Run({("linear-a", "causal"): Law(1e-6, 1)}, (256, 512)).content()
    for row in content["benchmarks"]:
        row["extra_info"]["energy_j"] = 0.0123
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    with without_pictures():
        writing.write_report([path], tmp_path / "out")
    found = Parsed(tmp_path / "out" / "report.html")
    assert "energy" in found.texts and "12.3 mJ" in found.texts
    assert any(text.startswith("Energy") for text in found.texts)
    assert "energy" not in page.texts


def test_a_wide_interval_does_not_squeeze_the_values_of_a_plot() -> None:
    look = CHOSEN["linear-triton"]
    points = [content.Point(n, 1e-3 * n, low=1e-12, high=1e9) for n in (1.0, 2.0)]
    axis = content.Axis("")
    drawn = charts.plot(content.Chart("", "", axis, axis, [content.Line("a", look, points)]), "plot")
    ends = drawn["doc"]["roots"][0]["attributes"]["y_range"]["attributes"]
    assert 1e-4 < ends["start"] < 1e-3 and 2e-3 < ends["end"] < 1e-2
