"""bulk: images a second of `predict --out`, against decoding alone in as many processes; and its peak memory.

The real command, in a fresh process, reads photographs of mixed sizes around 640×480 (JPEG, hard links to a few
distinct files) and writes one table. CPU seconds stand beside the rates, for a machine that is not quiet.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from cifar_fast.bench.predict import EXPORT
from cifar_fast.bench.startup import untrained_export
from cifar_fast.bench.timing import Bar, alternate, compare, note
from cifar_fast.data.images import read_image
from cifar_fast.export.card_format import NAME as CARD
from cifar_fast.utils.cores import CORES

FILES = 10_000  # of a round
MANY = 100_000  # whose memory is measured, in one run
DISTINCT = 50
BAR = Bar(must=0.70)


def measure(rounds: int) -> dict:
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        export = EXPORT if (Path(EXPORT) / CARD).is_file() else untrained_export(folder)[0]
        originals = photographs(folder)
        few, many = (links(folder / str(count), originals, count) for count in (FILES, MANY))
        spent, memory = defaultdict(list), {}
        note(f"bulk: {FILES:,} files in {CORES} processes")
        values = alternate({"decoding": side(FILES, lambda: decode(few), spent["decoding"]),
                            "predict": side(FILES, lambda: memory.update({FILES: predict(export, few)}),
                                            spent["predict"])}, rounds, warm=False)
        note(f"bulk: {MANY:,} files, once")
        rate = side(MANY, lambda: memory.update({MANY: predict(export, many)}), spent["many"])()
    cpu = {name: sum(seconds) / (MANY if name == "many" else FILES) / len(seconds) for name, seconds in spent.items()}
    rows = [{"images": count, "MB of the command": round(of["parent"]), "MB of its largest worker": round(of["worker"])}
            for count, of in memory.items()]
    return {"comparisons": {f"{FILES:,} files": compare(values["predict"], values["decoding"], "images/s", BAR,
                                                        f"decoding in {CORES} processes")},
            "tables": {"peak memory": rows},
            "notes": [f"{export}; JPEGs of {DISTINCT} sizes around 640×480, {MANY:,} in {CORES} processes: {rate:,.0f} "
                      f"images/s, a million in {1e6 / rate / 3600:.1f} h",
                      f"CPU ms an image: decoding {1e3 * cpu['decoding']:.2f}, predict {1e3 * cpu['predict']:.2f} "
                      f"({MANY:,}: {1e3 * cpu['many']:.2f}, a million in {cpu['many'] * 1e6 / 3600:.2f} core hours)"]}


def side(count: int, work: Callable[[], object], spent: list[float]) -> Callable[[], float]:
    "Images per second of `work`; adds the CPU seconds of its processes to `spent`."
    def measured() -> float:
        cpu, begun = children_seconds(), time.perf_counter()
        work()
        spent.append(children_seconds() - cpu)
        return count / (time.perf_counter() - begun)
    return measured


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def photographs(folder: Path) -> list[Path]:
    "JPEGs of 480 to 800 pixels' width, of the two photographs that come with scikit-learn."
    from sklearn.datasets import load_sample_images

    paths, pixels = [], load_sample_images().images
    for i in range(DISTINCT):
        width = 480 + 320 * i // DISTINCT
        paths.append(folder / f"photograph-{i}.jpg")
        Image.fromarray(pixels[i % 2]).resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(paths[-1],
                                                                                                   quality=90)
    return paths


def links(folder: Path, originals: list[Path], count: int) -> Path:
    "A folder of `count` files, a thousand in each of its folders."
    for i in range(count):
        place = folder / f"{i // 1000:04}"
        if i % 1000 == 0:
            place.mkdir(parents=True)
        os.link(originals[i % len(originals)], place / f"{i:07}.jpg")
    return folder


def decode(folder: Path) -> None:
    with ProcessPoolExecutor(CORES, get_context("spawn")) as pool:
        for _ in pool.map(decode_folder, sorted(folder.iterdir())):
            pass


def decode_folder(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        read_image(path)


def predict(export: str, folder: Path) -> dict[str, float]:
    "Peak resident megabytes of the command and of its largest worker."
    peaks = {"parent": 0.0, "worker": 0.0}
    with tempfile.TemporaryDirectory() as out:
        process = subprocess.Popen([sys.executable, "-m", "cifar_fast", "predict", export, str(folder), "--out",
                                    f"{out}/predictions.parquet", "-q"], stdout=subprocess.DEVNULL)
        while process.poll() is None:
            peaks["parent"] = max(peaks["parent"], peak(process.pid))
            peaks["worker"] = max(peaks["worker"], *map(peak, children(process.pid)), 0.0)
            time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"predict ended with {process.returncode}")
    return peaks


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def peak(pid: int) -> float:
    "Megabytes (10^6 bytes) of a process, 0 where it has ended, or except on Linux."
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)
