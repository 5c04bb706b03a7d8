"""Odd and broken images."""

import io
import json
import os
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from cifar_fast.data.errors import DataError, ImageError
from cifar_fast.data.images import MAX_PIXELS, read_image
from cifar_fast.data.sources import load_source
from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Data, Normalization
from cifar_fast.export.predictor import Predictor
from cifar_fast.utils.text import printable

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(mode="RGB", size=(32, 32), seed=0) -> Image.Image:
    shape = (size[1], size[0], len(Image.new(mode, (1, 1)).getbands()))
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values.squeeze(-1) if shape[2] == 1 else values, mode)


def png_with_header(width: int, height: int) -> bytes:
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_the_right_size_passes_bit_for_bit(tmp_path):
    image = noise()
    image.save(tmp_path / "a.png")
    exact = np.asarray(image)
    path, data = tmp_path / "a.png", encoded(image)
    for source in (path, str(path), data, io.BytesIO(data), image):
        image = read_image(source)
        assert image.dtype == np.uint8 and image.flags.writeable
        assert np.array_equal(image, exact)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (7, 3), (33, 32), (640, 480), (32, 31)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_any_size_and_mode(size, mode):
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        source = Image.fromarray(np.full(size[::-1], 7, kind))
    else:
        source = noise("RGB", size).convert("RGBA" if mode == "LA" else mode)
        source = source.convert("LA") if mode == "LA" else source
    image = read_image(source)
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    assert read_image(source, size=8).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_common_formats(kind):
    assert np.abs(read_image(encoded(Image.new("RGB", (50, 40), RED), kind)).astype(int) - RED).max() < 4


def test_the_centre_square_is_kept():
    image = Image.new("RGB", (96, 32), "black")
    image.paste(RED, (32, 0, 64, 32))
    assert (read_image(image) == RED).all()


def test_transparency_is_white():
    assert (read_image(Image.new("RGBA", (64, 64), (9, 9, 9, 0))) == WHITE).all()
    assert (read_image(encoded(Image.new("LA", (32, 32), (9, 0)))) == WHITE).all()
    assert (read_image(encoded(Image.new("RGB", (32, 32), RED), transparency=RED)) == WHITE).all()
    palette = Image.new("P", (40, 40), 1)
    palette.putpalette([0, 0, 0, *RED])
    assert (read_image(encoded(palette)) == RED).all()
    assert (read_image(encoded(palette, transparency=1)) == WHITE).all()
    assert (read_image(encoded(palette, "GIF", transparency=1)) == WHITE).all()


def test_cmyk_jpeg():
    image = read_image(encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG"))
    assert np.abs(image.astype(int) - RED).max() < 4


def test_deep_greys_are_scaled_not_cut():
    for value, wanted in ((0, 0), (257, 1), (25_700, 100), (65_535, 255)):
        values = np.full((32, 32), value, np.uint16)
        values[0, 0] = 65_535  # one white pixel says that all 16 bits are used
        for kind in ("PNG", "TIFF"):
            assert (read_image(encoded(Image.fromarray(values), kind))[1:] == wanted).all()


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_range_of_deep_images_is_that_of_their_values(top, channels):
    ramp = np.linspace(0, top, 32).astype(np.uint16)
    blue_first = np.stack([ramp * (c in (0, 3)) for c in range(channels)], -1)[None].repeat(32, 0)
    blue_first[..., 3:] = 65535
    for end in (".png", ".tif"):
        image = read_image(cv2.imencode(end, blue_first.squeeze())[1].tobytes())
        assert image[5, -1].tolist() == ([0, 0, 255] if channels > 1 else [255] * 3)
        assert abs(int(image[5, 16, 2]) - round(255 * int(ramp[16]) / top)) <= 1


def test_a_file_that_states_its_range_is_read_by_that():
    dark = Image.fromarray(np.full((32, 32), 200, np.uint16))
    for kind in ("PPM", "JPEG2000"):
        assert (read_image(encoded(dark, kind)) == 1).all()


@pytest.mark.parametrize("top", [200, 1600, 4095, 16383, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_white_in_a_ppm_is_white_whatever_its_range(top, channels):
    pixels = np.full((8, 8, channels), top, ">u2" if top > 255 else "u1")
    head = f"P{6 if channels == 3 else 5} 8 8 {top}\n".encode()
    assert (read_image(io.BytesIO(head + pixels.tobytes())) == 255).all()


def test_the_range_of_a_dataset_holds_for_each_of_its_images(tmp_path):
    dark, bright = (Image.fromarray(np.full((32, 32), v, np.uint16)) for v in (200, 4000))
    for part, name in ((p, n) for p in ("train", "test") for n in "ab"):
        (tmp_path / part / name).mkdir(parents=True)
        for image, file in ((dark, "0.png"), (bright, "1.tif")):
            image.save(tmp_path / part / name / file)
    source = load_source(tmp_path, cache=tmp_path / "cache")
    assert source.ranges == {"uint16": (0, 4095)} and source.train.images[:, 0, 0, 0].tolist() == [12, 249] * 2
    assert "8 images hold more than 8 bits (uint16): their values 0 to 4095" in source.notes[0]
    assert load_source(tmp_path, cache=tmp_path / "cache").ranges == source.ranges  # from the cache
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 2))
    card = Card(arch="x", vocab=["a", "b"], normalize=Normalization(mean=[0, 0, 0], std=[1, 1, 1]),
                data=Data(ranges=source.ranges))
    card = Card.from_json(json.dumps(card.to_dict()))  # as the export of such a run holds it
    alone = Predictor(model, card.vocab, card.normalize, torch.device("cpu"), card).read(tmp_path / "test/a/0.png")
    assert alone[0, 0].tolist() == [12, 12, 12] and read_image(tmp_path / "test/a/0.png")[0, 0, 0] == 200


def test_floats_by_their_range():
    cases = {(0, 0.5, 1): (0, 128, 255), (0, 100, 255): (0, 100, 255), (-4, 0, 4): (0, 128, 255)}
    for values, wanted in cases.items():
        image = Image.fromarray(np.repeat(np.array(values, np.float32), 11)[:32][None].repeat(32, 0))
        image = read_image(encoded(image, "TIFF"))
        assert tuple(image[0, [0, 15, 31], 0]) == wanted
    broken = Image.fromarray(np.full((32, 32), np.nan, np.float32))
    with pytest.raises(ImageError, match="non-finite"):
        read_image(encoded(broken, "TIFF"))


def test_exif_turns_the_image():
    image = Image.new("RGB", (32, 32), "black")
    image.paste(RED, (0, 0, 32, 16))  # the upper half; a quarter clockwise (6) makes it the right half
    exif = Image.Exif()
    exif[0x0112] = 6
    image = read_image(encoded(image, exif=exif))
    assert (image[:, 16:] == RED).all() and (image[:, :16] == 0).all()


def test_broken_exif_loses_nothing():
    assert (
        read_image(encoded(Image.new("RGB", (32, 32), RED), exif=b"Exif\0\0MM\0*\xff\xff")) == RED
    ).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(read_image(data).astype(int) - RED).max() < 8


def test_the_image_given_is_left_as_it_is():
    image = Image.new("RGBA", (64, 20), (1, 2, 3, 4))
    read_image(image)
    assert image.size == (64, 20) and image.mode == "RGBA" and image.getpixel((0, 0)) == (1, 2, 3, 4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_cut_and_flipped_bytes_never_escape(kind, tmp_path):
    whole = encoded(noise(size=(60, 60)), kind)
    with pytest.raises(ImageError):
        read_image(whole[: len(whole) // 2])
    draw = np.random.default_rng(0)
    for _ in range(25):
        data = bytearray(whole)
        for place in draw.integers(0, min(len(data), 400), 3):
            data[place] ^= 1 << int(draw.integers(8))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_image(data).shape == (32, 32, 3)
            except ImageError:
                pass


def test_what_is_no_image_is_named(tmp_path):
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    cases = {"empty.png": b"", "text.png": b"hello " * 50, "script.png": script}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(ImageError, match="0 bytes"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path / "folder.png")
    with pytest.raises(ImageError, match="none.png: No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError):
        read_image(b"")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8_001, 10_000, 20_000, 2_000_000])
def test_huge_headers_are_refused_before_decoding(side):
    assert side * side > MAX_PIXELS
    with pytest.raises(ImageError, match="pixels"):
        read_image(png_with_header(side, side))


def test_no_permission(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(noise()))

    def refuse(*args, **kwargs):  # root may read everything, so chmod would not do
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match="a.png: Permission denied"):
        read_image(tmp_path / "a.png")


def test_names_are_shown_on_one_line():
    assert printable("Zoë 猫.png") == "Zoë 猫.png"
    assert printable("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert printable(b"\xff.png") == "\\udcff.png"
