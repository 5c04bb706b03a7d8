"""Any image → a square of uint8 RGB; training and prediction read their images the same way."""

import functools
import io
import os
import stat

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_fast.data.depth import ORIENTATION, Ranges, guessed_range, in_eight_bits
from cifar_fast.data.errors import ImageError
from cifar_fast.utils.text import printable

MAX_PIXELS = 64_000_000  # by the header, before decoding: about 0.7 GB of memory in the worst mode
MAX_BYTES = 512 * 2**20  # of a file on disk; 64 megapixels of raw 16-bit RGBA just fit
# Raster formats only: Pillow would run Ghostscript on EPS.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
# Pillow has imported these at its first file; all others together cost a good part of a second's start.
USUAL = ("BMP", "GIF", "JPEG", "PNG", "PPM")
EXTENSIONS = frozenset(
    ".apng .avif .bmp .dib .gif .heic .heif .j2k .jfif .jp2 .jpe .jpeg .jpg .jpx .mpo .pbm .pgm .png .pnm"
    " .ppm .tif .tiff .webp".split()
)
SEEN = {"crop": "the centre square, scaled", "pad": "the whole image, scaled and with black bars,",
        "squash": "the whole image, scaled without its proportions,"}
"What a model is shown of an image, before \"to 32×32 pixels\"."
RESIZE_MODES = tuple(SEEN)


def batch_size(size: int, images: int = 125) -> int:
    "Images of `size` pixels at a time that hold as much as `images` of 32×32; on a CPU 125 of those are fastest."
    return max(1, images * 32**2 // max(32, size) ** 2)


def read_image(
    source,  # a path, an open binary file, the bytes of a file, or a PIL image (which is left as it is)
    size: int = 32,  # side of the square, pixels
    resize_mode: str = "crop",  # one of RESIZE_MODES
    ranges: Ranges | None = None,  # of values of more than eight bits, see `depth`; None: what holds the image's own
) -> np.ndarray:  # (size, size, 3) uint8, RGB
    """Decode an image, turn it upright and bring it to size×size with antialiasing.

    crop takes the centre square, pad adds black bars (letterbox), squash changes the proportions; a size×size RGB
    image comes out unchanged. Transparency becomes white. Of an animation the first frame is read. Values of more
    than eight bits are scaled by a range, see `depth`. Colour profiles are not applied.
    Raises ImageError, which names the image and the reason, whatever is wrong with it.
    """
    try:
        if isinstance(source, Image.Image):
            return square(source, size, resize_mode, ranges)
        if isinstance(source, bytes | bytearray | memoryview):
            return decode(io.BytesIO(source), size, resize_mode, ranges)
        if hasattr(source, "read"):
            return decode(source, size, resize_mode, ranges)
        check_file(source)
        with open(source, "rb") as file:
            return decode(file, size, resize_mode, ranges)
    except Exception as error:  # Pillow's decoders raise nearly everything: SyntaxError, struct.error, …
        name = source_name(source)
        raise ImageError(f"{name}: {reason_of(error, name)}") from error


def check_file(path) -> None:
    "Raise ImageError, before it is opened, for what would block (a pipe), never end (a device) or is too large."
    info = os.stat(path)
    if stat.S_ISDIR(info.st_mode):
        raise ImageError("is a folder, not an image")
    if not stat.S_ISREG(info.st_mode):
        raise ImageError("is not a regular file")
    if info.st_size == 0:
        raise ImageError("is empty (0 bytes)")
    if info.st_size > MAX_BYTES:
        raise ImageError(f"has {info.st_size:,} bytes, more than the {MAX_BYTES:,} allowed")


@functools.cache
def formats() -> tuple[str, ...]:
    "The allowed formats this Pillow can open."
    Image.init()
    return tuple(f for f in FORMATS if f in Image.OPEN)


def open_image(file) -> Image.Image:
    "An image of the allowed formats whose pixels are not decoded yet, of a path or an open file."
    try:
        return Image.open(file, formats=USUAL)
    except UnidentifiedImageError:
        return Image.open(file, formats=formats())


def decode(file, size: int, resize_mode: str, ranges: Ranges | None) -> np.ndarray:
    with open_image(file) as image:
        return square(image, size, resize_mode, ranges)


def check_size(image: Image.Image) -> None:
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(f"has {width} x {height} pixels; from 1 to {MAX_PIXELS:,} are allowed")


def deep_range(path) -> tuple[str, tuple[float, float]] | None:
    "Type and guessed range of an image of more than eight bits; None for others, and for what cannot be read."
    try:
        if not hasattr(path, "read"):  # not an open file
            check_file(path)
        with open_image(path) as image:
            check_size(image)
            return guessed_range(image)
    except Exception:  # it is reported where the image itself is read
        return None


def square(image: Image.Image, size: int, resize_mode: str, ranges: Ranges | None) -> np.ndarray:
    check_size(image)
    image = upright(in_eight_bits(image, ranges))  # loaded before EXIF is read: a truncated image fails here and once
    image = eight_bits(centre_square(image) if resize_mode == "crop" else image)
    sides = (size, size)
    if resize_mode == "pad":
        sides = tuple(max(1, round(side * size / max(image.size))) for side in image.size)
    if image.size != sides:
        image = image.resize(sides, Image.Resampling.BICUBIC)  # antialiased; RGBA premultiplied
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return np.array(ImageOps.pad(image, (size, size)) if resize_mode == "pad" else image)


def upright(image: Image.Image) -> Image.Image:
    "Turned as EXIF says; an image with a broken EXIF block is read as it is."
    try:
        return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image
    except Exception:
        return image


def centre_square(image: Image.Image) -> Image.Image:
    width, height = image.size
    if width == height:
        return image
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def eight_bits(image: Image.Image) -> Image.Image:
    "In mode RGB, or RGBA where a part is transparent."
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def source_name(source) -> str:
    if isinstance(source, str | os.PathLike):
        return printable(source)
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return printable(name) if isinstance(name, str | bytes | os.PathLike) and name else "image"


def reason_of(error: Exception, name: str = "") -> str:
    if isinstance(error, UnidentifiedImageError):  # its own text names a Python object
        heic = " (HEIC: convert it to JPEG)" if name.lower().endswith((".heic", ".heif")) else ""
        return f"is not an image in a format known here{heic}"
    if isinstance(error, Image.DecompressionBombError):  # its own text is for programmers
        return f"has too many pixels; from 1 to {MAX_PIXELS:,} are allowed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(error) or type(error).__name__
