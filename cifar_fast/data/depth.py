"""Images of more than eight bits → eight, by the range that their values use.

A file seldom says how many of its 16 bits hold something, so the range is the smallest usual one that holds the values.
It is one for all images of a dataset: stretched one by one, a dark image would look like a bright one.
"""

import math

import numpy as np
from PIL import Image

from cifar_fast.data.errors import ImageError

TOPS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # 8, 10, 12, 14 and 16 bits
ORIENTATION = 0x0112  # the EXIF tag
BITS = 258  # TIFF's tag BitsPerSample
Ranges = dict[str, tuple[float, float]]
"Type of the values (uint16, int32, float32) → their lowest and highest, which become 0 and 255."


def deep_values(image: Image.Image) -> np.ndarray | None:
    "Loads the image; its pixels (H, W) or (H, W, C) if they have more than eight bits, else None."
    content = None
    if any("16" in str(tile.args) for tile in getattr(image, "tile", ())) and image.mode in ("RGB", "RGBA", "LA"):
        image.fp.seek(0)  # Pillow keeps the upper eight bits of colours, which may all be 0
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


def to_eight_bits(image: Image.Image, values: np.ndarray, ranges: Ranges | None, found: Ranges | None) -> Image.Image:
    """The image of `deep_values` in eight bits; its orientation in EXIF is kept.

    Scaled by the range of `ranges` for its type; without one by its own, which is added to `found`.
    """
    colours, alpha = (values[..., :3], values[..., 3]) if values.ndim == 3 and values.shape[2] == 4 else (values, None)
    own, kind = values_range(colours, stated_top(image)), values.dtype.name
    if found is not None:
        found[kind] = own
    eight = Image.fromarray(scaled(colours, *(ranges or {}).get(kind, own)))
    if alpha is not None:
        eight.putalpha(Image.fromarray(scaled(alpha, *values_range(alpha))))
    if orientation := image.getexif().get(ORIENTATION):
        eight.getexif()[ORIENTATION] = orientation
    return eight


def stated_top(image: Image.Image) -> float | None:
    "The highest value that an image may have, where its file says so."
    if image.format in ("PPM", "JPEG2000"):
        return 65535.0  # Pillow scales by what the file says
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS, (16,))[0]
    return 2.0**bits - 1 if 8 < bits < 16 else None


def values_range(values: np.ndarray, stated: float | None = None) -> tuple[float, float]:
    "From 0 to the smallest usual top that holds the values; where none does, their own range. Raises ImageError."
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("has non-finite pixels (NaN or infinity)")
    tops = (stated,) if stated else (1.0, *TOPS) if values.dtype.kind == "f" else TOPS
    return next(((0.0, top) for top in tops if 0 <= low and high <= top), (low, high))


def common(ranges: list[Ranges]) -> Ranges:
    "For each type the range that holds those of all images."
    kinds = {kind for one in ranges for kind in one}
    each = {kind: [one[kind] for one in ranges if kind in one] for kind in sorted(kinds)}
    return {kind: (min(low for low, _ in own), max(high for _, high in own)) for kind, own in each.items()}


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    "low..high as 0..255, uint8 of the same shape; what lies outside is cut off."
    result = np.empty(values.shape, dtype=np.uint8)
    for row in range(0, len(values), 256):  # a few rows at a time, as float64 is eight times as large
        block = values[row : row + 256].astype(np.float64)
        result[row : row + 256] = np.rint((block - low) * (255 / max(high - low, 1e-300))).clip(0, 255)
    return result


def note(ranges: Ranges, count: int) -> str:
    "What was guessed about the images of a dataset."
    parts = ", ".join(f"{kind} {low:g} to {high:g}" for kind, (low, high) in ranges.items())
    return f"{count:,} images of more than 8 bits were brought to 8 by the range of their values ({parts} as 0 to 255)"
