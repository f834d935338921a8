"""What the site has besides its pages: found, cited, light, and it knows what a reader solved."""

import gzip
import json
import re
import sys
from itertools import chain
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import yaml
from browser import HTML, chromium
from bs4 import BeautifulSoup
from build_book import pages
from serve import ROOT, serving

import attncore

sys.path.append(str(ROOT / "book/_ext"))
import citation
import icons
import twins
import whole_site

LIGHT = 800_000  # bytes of a first load, compressed
WITHOUT_WORDS = {"bibliography", "glossary"}  # they are lists
NAMES = sorted(path.stem for path in (ROOT / "book").glob("*.md"))


def soup(name):
    return BeautifulSoup((HTML / "book" / f"{name}.html").read_text("utf-8"), "html.parser")


@pytest.fixture(scope="module")
def site():
    with serving(HTML) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


def test_every_page_says_what_it_is_and_which_version():
    for name in NAMES:
        page = soup(name)
        words = page.select_one("meta[name=description]")

        assert (
            f"Version {attncore.__version__} of the book"
            in page.select_one(".bd-footer-content").get_text()
        )
        if name not in WITHOUT_WORDS:
            assert 20 < len(words["content"]) <= 202, name
            assert words["content"] == page.select_one("meta[property='og:description']")["content"]


def test_every_page_has_a_twin_in_markdown():
    for name in NAMES:
        text = (HTML / "book" / f"{name}.md").read_text("utf-8")
        title = soup(name).h1.get_text().rstrip("#")

        assert soup(name).select_one("link[type='text/markdown']")["href"] == f"{name}.md"
        assert re.sub(r"\W", "", title) in re.sub(r"\W", "", text[:300]), name
        assert not re.search(r"\.ipynb\)|\{code-cell\}|<svg|data:image", text), name


def test_a_twin_has_the_code_and_what_it_shows():
    text = (HTML / "book/ch02_scaled_dot_product.md").read_text("utf-8")
    shown = [o.get_text().rstrip() for o in soup("ch02_scaled_dot_product").select(".stream pre")]

    assert text.count("```python") > 20
    assert "*Picture: " in text
    assert "*Figure: " in text
    assert all(f"```text\n{output}\n```" in text for output in shown)


def test_an_output_is_shown_by_its_words():
    svg = {"image/svg+xml": "<svg/>", "text/plain": ["Two ", "rows."]}
    png = {"image/png": "", "text/plain": "<Figure>"}
    alt = {"image/png": {"alt": "A line."}}

    assert twins.shown({"output_type": "stream", "text": ["1\n", "2\n"]}) == "```text\n1\n2\n```"
    assert twins.shown({"output_type": "x", "data": svg}) == "*Picture: Two rows.*"
    assert twins.shown({"output_type": "x", "data": png, "metadata": alt}) == "*Figure: A line.*"


def test_the_list_for_programs_names_every_page():
    text = (HTML / "llms.txt").read_text("utf-8")
    listed = re.findall(r"^- \[.+?\]\((\S+?)\)", text, flags=re.M)

    assert sorted(listed) == sorted(f"book/{name}.md" for name in NAMES)
    assert all((HTML / name).exists() for name in listed)
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    assert re.findall("^## (.+)$", text, flags=re.M) == [part["caption"] for part in toc["parts"]]


def test_the_citation_is_that_of_the_file():
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    shown = soup("cite").select_one("div.highlight-bibtex").get_text()
    entry = citation.bibtex(said, "https://a.org/b")

    assert shown.strip() == citation.bibtex(said, "")
    assert said["version"] == attncore.__version__
    assert "  author = {{The attncore authors}},\n" in entry
    assert "  url = {https://a.org/b},\n}" in entry
    person = {**said, "authors": [{"family-names": "Ng", "given-names": "A."}]}
    assert "author = {Ng, A.}" in citation.bibtex(person, "")


@pytest.mark.parametrize("base", ["https://a.org/b", "https://a.org/b/", ""])
def test_the_map_for_search_engines_needs_the_address(base, tmp_path):
    app = SimpleNamespace(
        config=SimpleNamespace(html_baseurl=base, html_theme_options={}),
        builder=SimpleNamespace(format="html", get_target_uri=lambda page: f"{page}.html"),
        env=SimpleNamespace(found_docs={"book/x", "book/a"}),
        outdir=tmp_path,
    )
    whole_site.write_map(app, None)
    whole_site.prepare(app, app.config)

    assert app.config.notfound_urls_prefix == ("/b/" if base else "/")
    if base:
        found = (tmp_path / "sitemap.xml").read_text("utf-8")
        assert re.findall("<loc>(.+?)</loc>", found) == [
            "https://a.org/b/book/a.html",
            "https://a.org/b/book/x.html",
        ]
        robots = (tmp_path / "robots.txt").read_text("utf-8")
        assert robots == "Sitemap: https://a.org/b/sitemap.xml\n"
    else:
        assert list(tmp_path.iterdir()) == []


def test_a_lost_reader_finds_the_way_from_any_depth():
    page = BeautifulSoup((HTML / "404.html").read_text("utf-8"), "html.parser")
    links = [a["href"] for a in page.select("article a[href], nav a[href]")]

    assert "This page is not here" in page.get_text()
    assert "/book/index.html" in links
    assert all(link.startswith(("/", "#", "https://")) for link in links)


def test_icons_are_found_where_they_are_named_or_written():
    sheet = '.fa-a:before{content:"\\f001"}.fa-b:before,.fa-c:before{content:"\\f002"}'
    sheet += '.fa-d:before{content:"\\f003"}.x:after{content:"\\f107"}:root{--y:"\uf071"}'

    assert icons.used('<i class="fa-solid fa-a">', '"fa-c"', sheet) == {
        0xF001,
        0xF002,
        0xF107,
        0xF071,
    }


def test_a_first_load_is_light_and_every_icon_is_drawn(browser, site):
    page = browser(f"{site}/book/ch08_kv_cache.html").page
    page.wait_for_function("document.fonts.status === 'loaded' && window.MathJax?.startup?.promise")
    page.evaluate("MathJax.startup.promise.then(() => document.fonts.ready).then(() => 0)")
    asked = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    page.close()
    files = {HTML / urlsplit(url).path.lstrip("/") for url in [*asked, "/book/ch08_kv_cache.html"]}
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 6)) for path in files}

    assert 300_000 < sum(sizes.values()) <= LIGHT, sizes
    assert "icons.woff" in sizes
    assert not any("/fontawesome/webfonts/" in url for url in asked)


def test_search_finds_the_glossary_first(browser, site):
    page = browser(f"{site}/book/index.html").page
    for term in ("prefill", "logits", "epoch"):
        page.goto(f"{site}/search.html?q={term}")
        page.wait_for_selector("#search-results li a")
        page.wait_for_function("document.querySelector('#search-results p.search-summary')")
        first = page.locator("#search-results li a").first.get_attribute("href")
        assert "book/glossary.html" in first, term
    page.close()


def test_search_and_front_page_lead_to_the_questions_people_ask():
    search = BeautifulSoup((HTML / "search.html").read_text("utf-8"), "html.parser")

    assert [a["href"] for a in search.select("p.asked a")] == ["book/questions.html"]
    assert (HTML / "book/questions.html").exists()
    assert soup("index").select("article a[href='questions.html']")


def test_a_chapter_says_how_long_it_takes():
    for path in pages(ROOT):
        page = soup(path.stem)
        said = page.select_one("p.page-time")
        count = len(page.select("div.exercise"))

        assert (said is not None) == (count > 0 and path.stem != "index"), path.stem
        if said:
            found = re.fullmatch(
                r"About (\d+) minutes to read, and (\d+) for (\d+) exercises", said.get_text()
            )
            read, practice, named = map(int, found.groups())
            assert 10 <= read <= 180
            assert practice % 5 == 0
            assert named == count


def test_the_numbers_of_the_exercises_are_known_to_every_page():
    from attncore.exercises import EXERCISES

    for name in NAMES:
        known = json.loads(soup(name).select_one("script#exercise-counts").string)
        assert {*chain(*known.values())} == EXERCISES.keys() - {"0.1"}


def test_what_is_solved_is_kept_and_shown_on_every_page(browser, site):
    opened = browser(f"{site}/book/ch01_kernel_regression.html")
    page = opened.page
    cells = page.locator("div.exercise#ex-1-1 div.cell")
    assert page.locator(".solved-mark, .solved-count").count() == 0
    say = """cell => { cell.querySelector('.cell_output pre').textContent = 'so\\n1.1 TEXT\\n';
      cell.dispatchEvent(new CustomEvent('cell-ran', { bubbles: true })); }"""
    cells.last.evaluate(say.replace("TEXT", "not yet: 1.1 correct"))
    page.locator("div.solution div.cell").first.evaluate(say.replace("TEXT", "correct"))
    assert page.locator(".solved-mark").count() == 0
    cells.last.evaluate(say.replace("TEXT", "correct"))
    assert page.locator("#ex-1-1 .solved-mark").inner_text() == "✓ solved"

    page.goto(f"{site}/book/ch02_scaled_dot_product.html")
    page.wait_for_selector(".solved-count")
    total = len(soup("ch01_kernel_regression").select("div.exercise"))
    assert page.locator("nav .solved-count").all_inner_texts() == [f"1/{total}"]
    page.goto(f"{site}/book/ch01_kernel_regression.html")
    page.wait_for_selector("#ex-1-1 .solved-mark")
    assert page.locator(".solved-mark").count() == 1

    page.evaluate("localStorage.setItem('attncore-solved', '{broken')")
    page.reload()
    page.wait_for_selector("p.page-time")
    assert page.locator(".solved-mark").count() == 0
    page.close()
