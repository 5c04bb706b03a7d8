"""Original files for a browser: unchanged where it shows them, else as PNG."""

import io

import numpy as np
import pytest
from PIL import Image

from cifar_fast.data.errors import ImageError
from cifar_fast.data.originals import as_png, media_type

COLOURS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.mark.parametrize("name, kind", [("a.jpg", "image/jpeg"), ("a.png", "image/png"), ("a.webp", "image/webp"),
                                        ("a.gif", "image/gif"), ("a.tif", None), ("a.ppm", None)])
def test_browsers_show_these_as_they_are(tmp_path, name, kind):
    Image.fromarray(COLOURS).save(tmp_path / name)
    (tmp_path / name).rename(tmp_path / "named.txt")  # the content decides
    assert media_type(tmp_path / "named.txt") == kind


def test_deep_greys_are_brought_to_eight_bits(tmp_path):
    Image.fromarray(np.linspace(0, 4095, 2400).astype(np.uint16).reshape(40, 60)).save(tmp_path / "deep.png")
    assert media_type(tmp_path / "deep.png") is None  # a browser would show it nearly black
    with Image.open(io.BytesIO(as_png(tmp_path / "deep.png"))) as shown:
        assert shown.size == (60, 40) and shown.convert("L").getextrema()[1] > 250


def test_it_is_turned_upright_and_stays_whole(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(COLOURS).save(tmp_path / "turned.tif", exif=exif)
    with Image.open(io.BytesIO(as_png(tmp_path / "turned.tif"))) as shown:
        assert np.array_equal(np.asarray(shown), np.rot90(COLOURS, -1))


@pytest.mark.parametrize("content", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html><script>"])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    for function in (media_type, as_png):
        with pytest.raises(ImageError, match="a.png"):
            function(tmp_path / "a.png")
