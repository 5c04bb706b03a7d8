"""The page's colours against WCAG."""

import re

import pytest

from cifar_fast.serve import app


def luminance(colour: str) -> float:
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_enough_contrast():
    "WCAG AA: 4.5 for text, 3 for the edges of controls."
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    css = (app.STATIC / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.S)
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in blocks)
    assert light.keys() == dark.keys()
    for scheme in (light, dark):
        for text in ("text", "quiet", "accent", "bad"):
            for ground in ("page", "card", "sunk"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
        assert contrast(scheme["on-accent"], scheme["accent"]) >= 4.5
        for edge, ground in (("edge", "page"), ("edge", "card"), ("accent", "page"), ("accent", "card"),
                             ("bad-line", "page"), ("bad-line", "card")):
            assert contrast(scheme[edge], scheme[ground]) >= 3, (edge, ground)
