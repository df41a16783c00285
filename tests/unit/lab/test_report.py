"""A report is one page that needs nothing else."""

import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from korch.lab.report import Page, Series, number


class _Seen(HTMLParser):
    """Collects tags, attributes and text, and fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _page() -> Page:
    page = Page("A report", [("seed", 7), ("version", "1.0")])
    page.section("First").text("Some words.").table(["name", "pods"], [["a", 1200], ["b", 0.25], ["c", None]], caption="Pods")
    page.section("Second").lines(
        [Series("one", [(0, 0), (1, 5), (2, 3)]), Series("two", [(0, 1), (1, math.nan), (2, 2)])],
        title="Lines",
        x_label="s",
        is_stepped=True,
    ).bars([("x", 3), ("y", 6)], title="Bars", unit="pods/s").code("a < b")
    return page


def test_a_page_holds_what_was_added_and_closes_every_tag():
    seen = _Seen(_page().html())
    for text in ("A report", "First", "Some words.", "1,200", "0.25", "Pods", "Lines", "Bars", "6 pods/s", "a < b"):
        assert text in seen.texts
    assert [tag for tag, _ in seen.tags].count("svg") == 4, "two charts and two samples of the legend"


def test_nothing_is_loaded_from_elsewhere():
    seen = _Seen(_page().html())
    assert not {"script", "link", "img", "iframe", "object", "embed"} & {tag for tag, _ in seen.tags}
    for _, attributes in seen.tags:
        assert not set(attributes) & {"src", "srcset", "onload", "onclick"}
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in _page().html()
    assert "@import" not in _page().html()


@settings(deadline=None)
@given(st.text(max_size=40))
def test_text_from_outside_stays_text(text: str):
    page = Page(text, [(text, text)])
    page.section(text).text(text).table([text], [[text]], caption=text).bars([(text, 1)], title=text, unit=text).code(text)
    page.section("x").lines([Series(text, [(0, 1), (1, 2)])], title=text, x_label=text, y_label=text)
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "dl",
        "div",
        "dt",
        "dd",
        "nav",
        "ol",
        "li",
        "a",
        "section",
    }
    allowed |= {
        "p",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "svg",
        "text",
        "rect",
        "path",
        "ul",
        "pre",
    }
    assert {tag for tag, _ in _Seen(page.html()).tags} <= allowed


def test_equal_content_gives_equal_bytes():
    assert _page().html() == _page().html()


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2 columns"):
        Page("x").section("y").table(["a", "b"], [["only"]])


def test_a_peak_among_a_million_points_is_still_drawn():
    points = [(float(x), 100.0 if x == 777_777 else 1.0) for x in range(1_000_000)]
    page = Page("x")
    page.section("y").lines([Series("s", points)])
    html = page.html()
    assert len(html) < 60_000
    drawn = re.search(r'class="v k0" d="([^"]+)"><title>', html)
    assert drawn is not None
    heights = [float(point.split(" ")[1]) for point in re.split("[ML]", drawn.group(1)) if point]
    assert min(heights) == 12, "the peak touches the upper edge"
    assert sum(height < 200 for height in heights) == 1


def test_a_stepped_line_holds_its_value_until_the_next_point():
    page = Page("x")
    page.section("y").lines([Series("s", [(0, 0), (10, 4)])], is_stepped=True)
    assert 'd="M64 220H848V12"' in page.html()


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9) | st.just(math.nan)), max_size=30))
def test_any_points_can_be_drawn(points: list[tuple[float, float]]):
    page = Page("x")
    page.section("y").lines([Series("s", sorted(points, key=lambda point: point[0]))])
    _Seen(page.html())
    assert "nan" not in page.html()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1,234,567"), (2.0, "2"), (0.123456, "0.1235"), (12345.678, "12,345.7"), (None, ""), (math.nan, "–"), ("a", "a")],
)
def test_numbers_are_written_for_readers(value: float | str | None, text: str):
    assert number(value) == text
