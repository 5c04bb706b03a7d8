"""The size of a folder's or a table's images in a run, where nobody names one: chosen from the images."""

from collections.abc import Sequence

from PIL import Image

from cifar_fast.data.images import check_file, formats

SMALL, LARGE = 32, 64
LARGE_FROM = 128  # pixels of the shorter side
SAMPLE = 100  # images whose headers are read


def choose_size(paths: Sequence[str]) -> int:
    "LARGE where most of a sample of the images have at least LARGE_FROM pixels on their shorter side, else SMALL."
    step = max(1, len(paths) // SAMPLE)
    sides = [side for path in paths[::step] if (side := shorter_side(path))]
    return LARGE if 2 * sum(side >= LARGE_FROM for side in sides) > len(sides) else SMALL


def shorter_side(path: str) -> int | None:
    "Pixels, by the header; None where it cannot be read."
    try:
        check_file(path)
        with Image.open(path, formats=formats()) as image:
            return min(image.size)
    except Exception:  # Pillow's decoders raise nearly everything; `read_image` says later what is wrong
        return None
