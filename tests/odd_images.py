"""A folder of good, odd and broken images, each with the expected outcome."""

import io
import os
import resource
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

GOOD, BAD, EITHER = "good", "bad", "either"  # EITHER: damaged, but it may still be readable

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
ENDINGS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "PPM": "ppm"}


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (32, 32), seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values).convert(mode)


def png_with_header(width: int, height: int) -> bytes:
    "A PNG whose header claims this size and that has no pixels."
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def peak_mb() -> float:
    "Peak memory of this process in MB. Linux's ru_maxrss would start from the parent process's."
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def contents():
    "(name, bytes, expected outcome) of many kinds of content."
    rng = np.random.default_rng(0)
    for kind in FORMATS:
        end, whole = ENDINGS[kind], encoded(noise(size=(60, 60)), kind)
        yield f"whole.{end}", whole, GOOD
        yield f"one_pixel.{end}", encoded(noise(size=(1, 1)), kind), GOOD
        yield f"thin.{end}", encoded(noise(size=(1, 300)), kind), GOOD
        yield f"grey.{end}", encoded(noise("L", (40, 30)), kind), GOOD
        yield f"wrong_ending_{end}.png", whole, GOOD  # the content counts
        yield f"more_behind.{end}", whole + b"\0" * 500, GOOD
        yield f"empty.{end}", b"", BAD
        yield f"text.{end}", b"This is no image.\n" * 20, BAD
        yield f"zeros.{end}", bytes(5000), BAD
        yield f"only_its_first_bytes.{end}", whole[:8], BAD
        for fraction in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
            yield f"cut_at_{fraction}.{end}", whole[:int(len(whole) * fraction)], EITHER
        for i in range(12):
            flipped = bytearray(whole)
            for place in rng.integers(0, len(whole) if i % 2 else 200, 4):
                flipped[place] ^= 1 << int(rng.integers(8))
            yield f"flipped_{i}.{end}", bytes(flipped), EITHER
    for side in (8_001, 20_000, 2**31 - 1):
        yield f"claims_{side}.png", png_with_header(side, side), BAD
    yield "claims_nothing.png", png_with_header(0, 0), BAD
    yield "sixteen_bits.png", encoded(Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32) * 60)), GOOD
    yield "float.tif", encoded(Image.fromarray(np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)), "TIFF"), GOOD
    yield "int32.tif", encoded(Image.fromarray(np.arange(1024, dtype=np.int32).reshape(32, 32)), "TIFF"), GOOD
    nan = np.full((32, 32), np.nan, np.float32)
    yield "not_a_number.tif", encoded(Image.fromarray(nan), "TIFF"), BAD
    yield "cmyk.jpg", encoded(noise("CMYK"), "JPEG"), GOOD
    yield "cmyk.tif", encoded(noise("CMYK"), "TIFF"), GOOD
    yield "ycbcr.tif", encoded(noise("YCbCr"), "TIFF"), GOOD
    yield "bilevel.png", encoded(noise("1")), GOOD
    yield "rgba.png", encoded(noise("RGBA")), GOOD
    yield "grey_alpha.png", encoded(noise("LA")), GOOD
    yield "palette_transparent.png", encoded(noise().convert("P"), transparency=0), GOOD
    yield "palette_transparent.gif", encoded(noise().convert("P"), "GIF", transparency=0), GOOD
    for turn in range(1, 10):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield f"turned_{turn}.jpg", encoded(noise(size=(40, 20)), "JPEG", exif=exif), GOOD
    yield "broken_exif.jpg", encoded(noise(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), GOOD
    frames = [noise(seed=i) for i in range(3)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        yield (f"animated.{ENDINGS[kind]}", encoded(frames[0], kind, save_all=True, append_images=frames[1:]), GOOD)
    yield "script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", BAD
    yield "vector.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", BAD
    yield "page.png", b"<!doctype html><title>404</title>", BAD
    yield "archive.png", b"PK\x03\x04" + bytes(200), BAD
    yield "program.png", b"\x7fELF" + bytes(200), BAD


NAMES = ("Zoë 猫.png", "with space.png", "-dash.png", "quote'\".png", "new\nline.png", "escape\x1b[31m.png", "100%.png",
         "star*[a].png", "UPPER.PNG", "x" * 251 + ".png")


def make(folder: Path) -> dict[Path, str]:
    "Write them all; returns the expected outcome of each path."
    outcomes = {}
    for name, data, outcome in contents():
        (folder / name).write_bytes(data)
        outcomes[folder / name] = outcome
    for name in NAMES:
        (folder / name).write_bytes(encoded(noise()))
        outcomes[folder / name] = GOOD
    deep = folder / Path(*["d" * 50] * 20)
    deep.mkdir(parents=True)
    (deep / "deep.png").write_bytes(encoded(noise()))
    outcomes[deep / "deep.png"] = GOOD
    os.symlink(folder / "whole.png", folder / "link.png")
    outcomes[folder / "link.png"] = GOOD
    os.symlink("loop.png", folder / "loop.png")
    os.symlink("nowhere", folder / "dangling.png")
    os.symlink("/dev/zero", folder / "device.png")
    os.mkfifo(folder / "pipe.png")
    for name in ("loop", "dangling", "device", "pipe"):
        outcomes[folder / f"{name}.png"] = BAD
    if os.geteuid():  # root may read everything
        (folder / "secret.png").write_bytes(encoded(noise()))
        (folder / "secret.png").chmod(0)
        outcomes[folder / "secret.png"] = BAD
    return outcomes
