import base64
import html
import io
import re
import sys

import matplotlib
import pytest
from PIL import Image

from pipelab.errors import ConfigurationError
from pipelab.view import Picture, plot_timeline
from tests.view.scenes import predicted


@pytest.fixture(scope="module")
def picture():
    return plot_timeline(predicted("1f1b", 2, 2), title='a "quoted" <title> & more')


def test_a_notebook_gets_html_with_the_alternative_text(picture):
    bundle = picture._repr_mimebundle_()
    image = re.fullmatch(r'<img alt="([^"]*)" width="1050" style="max-width:100%" src="([^"]*)">', bundle["text/html"])
    assert html.unescape(image[1]) == picture.alt
    assert 'a "quoted" <title> & more' in picture.alt
    assert bundle["text/plain"] == picture.alt
    prefix, data = image[2].split(",")
    assert prefix == "data:image/png;base64"
    assert data == bundle["image/png"]
    assert Image.open(io.BytesIO(base64.b64decode(data))).width == 2100


def test_only_what_is_asked_for_is_shown(picture):
    assert set(picture._repr_mimebundle_(include=["text/plain"])) == {"text/plain"}
    assert set(picture._repr_mimebundle_(exclude=["image/png"])) == {"text/html", "text/plain"}


def test_ipython_shows_it_as_html(picture):
    formatters = pytest.importorskip("IPython.core.formatters")
    shown, _ = formatters.DisplayFormatter().format(picture)
    assert shown["text/html"].startswith("<img alt=")
    assert shown["text/plain"] == picture.alt


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")]
)
def test_save_by_suffix(picture, tmp_path, suffix, start):
    path = picture.save(tmp_path / "new" / f"run.{suffix}")
    assert path.read_bytes().startswith(start)
    assert picture.save(str(path)) == path


@pytest.mark.parametrize(
    ("name", "given"),
    [("run.jpg", "'run.jpg' has '.jpg'; try 'run.png'"), ("run", "'run' has no suffix; try 'run.png'")],
)
def test_other_suffixes_are_refused_with_what_works(picture, tmp_path, name, given):
    with pytest.raises(ConfigurationError, match=re.escape(f"saved as .png, .svg, .pdf; {given}")):
        picture.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_equal_pictures_are_equal_bytes(tmp_path, suffix):
    paths = [plot_timeline(predicted("gpipe", 2, 3)).save(tmp_path / f"{k}.{suffix}") for k in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_vector_picture_carries_its_text(picture, tmp_path):
    assert html.escape(picture.alt, quote=False) in picture.save(tmp_path / "run.svg").read_text()


def test_it_looks_the_same_in_any_style():
    plain = plot_timeline(predicted("1f1b", 2, 2)).png()
    with matplotlib.style.context(["dark_background", "ggplot"]), matplotlib.rc_context({"font.size": 20}):
        assert plot_timeline(predicted("1f1b", 2, 2)).png() == plain


def test_saving_leaves_the_picture_as_it_was(picture):
    before = picture.dpi, tuple(picture.get_size_inches())
    picture.png()
    assert (picture.dpi, tuple(picture.get_size_inches())) == before


def test_pyplot_knows_nothing_of_it(picture):
    assert isinstance(picture, Picture)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
