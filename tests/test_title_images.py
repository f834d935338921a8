"""The images of the book's title: there, current, small, and named where sites look for them."""

import re
import sys
from types import SimpleNamespace

import make_images
import pytest
import yaml
from PIL import Image

ROOT = make_images.STATIC.parent.parent
sys.path.append(str(ROOT / "book/_ext"))
import previews  # noqa: E402


def test_the_images_are_current():
    assert make_images.stale() == [], "run python tools/make_images.py"


def test_a_changed_image_is_noticed(monkeypatch):
    monkeypatch.setattr(make_images, "SAYS", "Something else.")
    assert make_images.stale() == ["og.png"]
    monkeypatch.setattr(make_images, "area", lambda svg: -len(svg))  # another picture is chosen
    assert len(make_images.stale()) > 5
    monkeypatch.undo()
    monkeypatch.setattr(make_images, "SAYS", "Something else.")
    monkeypatch.setattr(make_images, "icon", lambda: "<svg/>")
    assert make_images.stale() == ["favicon.svg", "og.png"]


def test_the_images_are_small_and_whole():
    for name in make_images.cards():
        with Image.open(make_images.STATIC / name) as image:
            assert image.size == (1200, 630), name
        assert (make_images.STATIC / name).stat().st_size < 60_000, name
    for name, text in make_images.texts().items():
        assert len(text) < 12_000, name
        assert not re.search(r" id=|href|<script|url\(", text), name
    assert make_images.title("light") != make_images.title("dark")


def test_they_show_the_example_of_the_front_page():
    front = (ROOT / "book/index.md").read_text("utf-8")
    cell = re.search(r"```\{code-cell\}[^\n]*\n---\n.*?\n---\n(.*?)```", front, flags=re.S)[1]
    names = {}
    exec(cell, names)  # noqa: S102 (our own page)

    for name in ("X", "W_Q", "W_K", "W_V"):
        assert (names[name] == getattr(make_images, name)).all(), name
    assert names["words"] == make_images.TOKENS


def test_the_configuration_names_them():
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    logo = config["sphinx"]["config"]["html_theme_options"]["logo"]
    named = [config["html"]["favicon"], logo["image_light"], logo["image_dark"]]

    assert {ROOT / name for name in named} == {
        make_images.STATIC / name for name in make_images.texts()
    }
    assert previews.IMAGE == "_static/og.png"
    assert logo["text"] == config["title"] == make_images.TITLE


@pytest.mark.parametrize(
    ("base", "image", "url"),
    [
        ("", "../_static/og.png", None),
        ("https://a.org/b/", "https://a.org/b/_static/og.png", "https://a.org/b/book/x.html"),
    ],
)
def test_tags_are_absolute_only_when_the_address_is_set(base, image, url):
    app = SimpleNamespace(
        config=SimpleNamespace(html_baseurl=base, html_title="Book"),
        builder=SimpleNamespace(get_target_uri=lambda page: f"{page}.html"),
    )
    images = ("_static/og.png", "../_static/og.png")
    tags = previews.tags(app, "book/x", "<b>2. </b>A &amp; B", "", images)

    assert (tags["og:image"], tags.get("og:url")) == (image, url)
    assert tags["og:title"] == "2. A & B"
    assert "og:description" not in tags
