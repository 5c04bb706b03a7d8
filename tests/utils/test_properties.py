"""What holds for any input, tried on many by hypothesis; and a short run of the fuzzer."""

import io
import os
import struct
from dataclasses import fields

import numpy as np
import pytest
from fuzz_images import fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from strangers import CARD

from cifar_fast.data.errors import ImageError
from cifar_fast.data.images import read_image
from cifar_fast.export.card import Card
from cifar_fast.export.card_format import FORMAT, ExportError
from cifar_fast.export.weights import read_weights
from cifar_fast.recipe import RecipeError, load_recipe, override
from cifar_fast.reporting.results.rows import changes
from cifar_fast.utils.files import atomic_write
from cifar_fast.utils.text import printable

IN_A_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


@settings(deadline=None, max_examples=150)
@given(width=st.integers(1, 200), height=st.integers(1, 200), size=st.integers(1, 64),
       mode=st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV"]), seed=st.integers(0, 99))
def test_every_image_becomes_a_square(width, height, size, mode, seed):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(values).convert("RGBA" if mode == "LA" else mode)
    found = read_image(image.convert("LA") if mode == "LA" else image, size)
    assert found.shape == (size, size, 3) and found.dtype == np.uint8


@settings(deadline=None, max_examples=60)
@given(colour=st.tuples(*[st.integers(0, 255)] * 3), width=st.integers(1, 80), height=st.integers(1, 80))
def test_one_colour_stays_that_colour(colour, width, height):
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    assert (read_image(file.getvalue()) == colour).all()


HEADS = (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\x20\0\0\0WEBPVP8 ", b"II*\0", b"BM", b"P6 ")


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_image_or_refused(data):
    for head in HEADS:
        try:
            assert read_image(head + data).shape == (32, 32, 3)
        except ImageError:
            pass


@settings(max_examples=300)
@given(st.text())
def test_any_name_is_shown_on_one_line(name):
    shown = printable(name)
    assert "\n" not in shown and "\x1b" not in shown and shown.isprintable()


@IN_A_FOLDER
@given(length=st.integers(0, 2**64 - 1), rest=st.binary(max_size=200))
def test_any_weights_are_refused(tmp_path, length, rest):
    for data in (struct.pack("<Q", length) + rest, struct.pack("<Q", len(rest)) + rest, rest):
        (tmp_path / "model.safetensors").write_bytes(data)
        with pytest.raises(ExportError):
            read_weights(tmp_path, CARD)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
                    max_leaves=12)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from([f.name for f in fields(Card)]), JSON, max_size=3))
def test_any_card_is_read_or_refused(odd):
    try:
        card = Card.from_dict({**CARD.to_dict(), **odd, "format": FORMAT})
    except ExportError as e:
        assert len(str(e)) < 400 and "\n" not in str(e)
    else:
        assert isinstance(card.facts(), list) and Card.from_dict(card.to_dict()) == card


@IN_A_FOLDER
@given(before=st.binary(max_size=50), after=st.binary(max_size=50), fails=st.booleans())
def test_a_file_has_its_former_content_or_its_new_one(tmp_path, before, after, fails):
    path = tmp_path / "x"
    path.write_bytes(before)
    try:
        with atomic_write(path) as tmp:
            tmp.write_bytes(after)
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert path.read_bytes() == (before if fails else after) and os.listdir(tmp_path) == ["x"]


SETTINGS = {
    "epochs": st.integers(1, 10**4), "bs": st.integers(1, 10**4), "lr": st.floats(1e-6, 10), "valid": st.floats(0, 0.9),
    "seed": st.integers(0, 2**32 - 1), "tta": st.booleans(), "clip": st.floats(0, 10),
    "fit.pct_start": st.floats(0.01, 0.99), "opt.momentum": st.floats(0, 0.99), "mix.until": st.floats(0, 1),
    "loss.label_smoothing": st.floats(0, 0.9)}


@settings(deadline=None, max_examples=60)
@given(st.fixed_dictionaries({}, optional=SETTINGS))
def test_what_was_typed_can_be_typed_again(typed):
    "A run's row says in words of the command line what was changed; these words make the same recipe."
    base = load_recipe("final")
    changed = override(base, [f"{key}={value}" for key, value in typed.items()])
    assert override(base, changes(changed).split()) == override(changed, [f"seed={base.seed}"])  # it has a column


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=30))
def test_any_change_is_made_or_refused(text):
    try:
        override(load_recipe("sprint"), [text])
    except RecipeError as e:
        assert str(e)


@pytest.mark.slow  # the odd images that were found by it are tested one by one
def test_the_loader_survives_the_fuzzer(tmp_path):
    found = fuzz(10, seed=0, folder=str(tmp_path))
    assert found["read"] > 10 and found["refused"] > 100 and not found.get("slow") and found["peak_mb"] < 2000
