"""The original file of an image as a browser can show it: unchanged, or else as PNG."""

import io
import os

from PIL import Image

from cifar_fast.data.depth import in_eight_bits, is_deep
from cifar_fast.data.errors import ImageError
from cifar_fast.data.images import check_file, check_size, eight_bits, formats, reason_of, source_name, upright

SHOWN = {"AVIF": "image/avif", "BMP": "image/bmp", "GIF": "image/gif", "JPEG": "image/jpeg", "MPO": "image/jpeg",
         "PNG": "image/png", "WEBP": "image/webp"}
"Formats that browsers show → their media type."

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")  # of eight bits: deeper ones browsers show as they like
MOST_SIDE = 4096  # pixels, of a converted image


def media_type(path: str | os.PathLike) -> str | None:
    """The media type of an image file that browsers show as it is; None where it must be converted.

    By its content: a name says nothing about what is in a file. Raises ImageError.
    """
    try:
        check_file(path)
        with Image.open(path, formats=formats()) as image:
            return SHOWN.get(image.format) if image.mode in MODES and not is_deep(image) else None
    except Exception as error:  # as read_image: Pillow raises nearly everything
        raise ImageError(f"{source_name(path)}: {reason_of(error, source_name(path))}") from error


def as_png(path: str | os.PathLike) -> bytes:
    "The whole image as PNG of eight bits, upright, its sides at most MOST_SIDE. Raises ImageError."
    try:
        check_file(path)
        with Image.open(path, formats=formats()) as image:
            check_size(image)
            shown = eight_bits(upright(in_eight_bits(image)))
            shown.thumbnail((MOST_SIDE, MOST_SIDE))
            return png(shown)
    except Exception as error:
        raise ImageError(f"{source_name(path)}: {reason_of(error, source_name(path))}") from error


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()
