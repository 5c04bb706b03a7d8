"""Read randomly damaged images for a while; every one must give an image or an ImageError.

    python tests/fuzz_images.py --minutes 30

The corpus is that of odd_images.py. Inputs are cut, spliced, repeated and overwritten, also with numbers at which
sizes overflow. They are read in a process of its own, so that a crash of a decoder is reported: the input that
caused it is saved.
"""

import argparse
import multiprocessing
import random
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from odd_images import contents, peak_mb

from cifar_fast.data.errors import ImageError
from cifar_fast.data.images import read_image

NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
SLOW = 20  # seconds for one input that count as a failure


def damaged(rng: random.Random, corpus: list[bytes]) -> bytes:
    "One input: an image of the corpus with one to four things done to it."
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            del data[at:]
        elif kind == 1:  # the rest of another file
            other = rng.choice(corpus)
            data[at:] = other[rng.randrange(len(other) + 1):]
        elif kind == 2:
            piece = data[at:at + rng.randrange(1, 64)]
            data[at:at] = piece * rng.randrange(1, 8)
        elif kind == 3:
            data[at:at + 4] = struct.pack(rng.choice(["<I", ">I"]), rng.choice(NUMBERS))
        elif kind == 4:
            data[at:at + 2] = struct.pack(rng.choice(["<H", ">H"]), rng.choice(NUMBERS) & 0xFFFF)
        else:
            for _ in range(rng.randrange(1, 9)):
                if data:
                    data[rng.randrange(min(len(data), rng.choice([64, 10**9])))] ^= 1 << rng.randrange(8)
    return bytes(data)


def work(seed: int, seconds: float, last: str, out) -> None:
    warnings.simplefilter("ignore")
    rng, corpus, counts = random.Random(seed), [d for _, d, _ in contents() if d], Counter()
    end = time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        data = damaged(rng, corpus)
        Path(last).write_bytes(data)
        try:
            image = read_image(data)
            assert image.shape == (32, 32, 3) and image.dtype == "uint8"
            counts["read"] += 1
        except ImageError:
            counts["refused"] += 1
        if time.monotonic() - start > SLOW:
            counts["slow"] += 1
            Path(f"{last}.slow").write_bytes(data)
    out.put((counts, round(peak_mb())))


def fuzz(seconds: float, seed: int = 0, folder: str | None = None) -> dict:
    "Counts of images read, refused and slow, and peak memory in MB. Raises RuntimeError if it crashed or hung."
    last = str(Path(folder or tempfile.mkdtemp()) / "last_input")
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=work, args=(seed, seconds, last, out))
    process.start()
    process.join(seconds + 120)
    if process.is_alive() or process.exitcode:
        process.kill()
        raise RuntimeError(f"the reader crashed or hung (exit code {process.exitcode}) on the input saved in {last}, "
                           f"seed {seed}")
    counts, peak = out.get()
    return {**counts, "peak_mb": peak}


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=1)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    result = fuzz(60 * args.minutes, args.seed)
    print(result)
    sys.exit(bool(result.get("slow")))
