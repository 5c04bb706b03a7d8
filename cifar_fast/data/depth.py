"""Images of more than eight bits → eight, by the range that their values use.

A file seldom says how many of its 16 bits hold something, so the range is the smallest usual one that holds the values.
It is one for all images of a dataset: stretched one by one, a dark image would look like a bright one.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from PIL import Image

from cifar_fast.data.errors import ImageError

TOPS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # 8, 10, 12, 14 and 16 bits
ORIENTATION = 0x0112  # the EXIF tag
BITS = 258  # TIFF's tag BitsPerSample
STANDARD = {"uint16": (0.0, 65535.0), "float32": (0.0, 1.0)}  # no guess

Range = tuple[float, float]
"Lowest and highest value, which become 0 and 255."

Ranges = dict[str, Range]
"By type of the values: uint16, int32, float32."


def in_eight_bits(image: Image.Image, ranges: Ranges | None = None) -> Image.Image:
    """The image, loaded; one of more than eight bits as a copy in eight, with its orientation in EXIF.

    It is scaled by what its file says, else by the range of `ranges` for its type, else by what holds its own values.
    """
    values = deep_values(image)
    if values is None:
        return image
    has_alpha = values.ndim == 3 and values.shape[2] == 4
    colours, stated = values[..., :3] if has_alpha else values, stated_top(image)
    known = None if stated else (ranges or {}).get(values.dtype.name)
    eight = Image.fromarray(scaled(colours, *(known or range_of(colours, stated))))
    if has_alpha:
        eight.putalpha(Image.fromarray(scaled(values[..., 3], *range_of(values[..., 3]))))
    if orientation := image.getexif().get(ORIENTATION):
        eight.getexif()[ORIENTATION] = orientation
    return eight


def is_deep(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I") or has_deep_colours(image)


def has_deep_colours(image: Image.Image) -> bool:
    """Whether an opened file holds 16 bits a channel, of which Pillow keeps the upper eight, which may all be 0.

    A PPM or JPEG 2000 file says how many of its bits it uses, and Pillow scales by that.
    """
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(args) for *_, args in getattr(image, "tile", ()))


def deep_values(image: Image.Image) -> np.ndarray | None:
    "Loads the image; its pixels (H, W) or (H, W, C) if they have more than eight bits, else None."
    content = None
    if has_deep_colours(image):
        image.fp.seek(0)
        content = image.fp.read()
    image.load()  # also refuses what is truncated
    if image.mode == "F" or image.mode.startswith("I"):
        return np.asarray(image)
    return None if content is None else deep_colours(content, image.size)


def deep_colours(content: bytes, size: tuple[int, int]) -> np.ndarray | None:
    "uint16 (H, W, C) in Pillow's order of channels; None where OpenCV reads the file otherwise than Pillow."
    import cv2

    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3 or values.shape[1::-1] != size:
        return None
    return values[..., [2, 1, 0, 3][: values.shape[2]]]


def stated_top(image: Image.Image) -> float | None:
    "The highest value that an image may have, where its file says so."
    if image.format in ("PPM", "JPEG2000"):
        return 65535.0  # Pillow scales by what the file says
    bits = getattr(image, "tag_v2", {}).get(BITS, (16,))[0]
    return 2.0**bits - 1 if 8 < bits < 16 else None


def range_of(values: np.ndarray, stated: float | None = None) -> Range:
    "From 0 to the smallest usual top that holds the values; where none does, their own range. Raises ImageError."
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("has non-finite pixels (NaN or infinity)")
    tops = (stated,) if stated else (1.0, *TOPS) if values.dtype.kind == "f" else TOPS
    return next(((0.0, top) for top in tops if 0 <= low and high <= top), (low, high))


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    "low..high as 0..255, uint8 of the same shape; what lies outside is cut off."
    if not np.isfinite(values).all():
        raise ImageError("has non-finite pixels (NaN or infinity)")
    result = np.empty(values.shape, dtype=np.uint8)
    for row in range(0, len(values), 256):  # a few rows at a time, as float64 is eight times as large
        block = values[row : row + 256].astype(np.float64)
        result[row : row + 256] = np.rint((block - low) * (255 / max(high - low, 1e-300))).clip(0, 255)
    return result


# ---------------------------------------------------------------- of a dataset


def guessed_range(image: Image.Image) -> tuple[str, Range] | None:
    "Type and range of an opened image of more than eight bits whose file does not say it; None for others."
    values = deep_values(image) if is_deep(image) and not stated_top(image) else None
    return None if values is None else (values.dtype.name, range_of(values[..., :3] if values.ndim == 3 else values))


def common(found: Iterable[tuple[str, Range]]) -> Ranges:
    "For each type the range that holds those of all images."
    each = defaultdict(list)
    for kind, own in found:
        each[kind].append(own)
    return {kind: (min(low for low, _ in own), max(high for _, high in own)) for kind, own in sorted(each.items())}


def notes(found: list[tuple[str, Range]]) -> list[str]:
    "A sentence for each type whose range was a guess."
    return [f"{sum(kind == k for k, _ in found):,} images hold more than 8 bits ({kind}): their values {low:g} to "
            f"{high:g}, the smallest usual range that holds them all, became 0 to 255"
            for kind, (low, high) in common(found).items() if (low, high) != STANDARD.get(kind)]
