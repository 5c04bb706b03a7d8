"""What `doctor` examines: versions, device, data and cache, and a self-test of ten seconds."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from cifar_fast.data.cache import cache_folder
from cifar_fast.data.errors import DataError
from cifar_fast.data.registry import named_datasets
from cifar_fast.data.sources import load_source, named_tree, plan_source
from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Data, Normalization
from cifar_fast.export.predictor import load_export
from cifar_fast.export.save import save_export
from cifar_fast.export.trust import trust_list, trusted_sums
from cifar_fast.recipe import load_recipe, override
from cifar_fast.training import convolution_gradients
from cifar_fast.training.callbacks.compiling import why_not
from cifar_fast.training.callbacks.precision import DTYPES, choose_precision, cpu_has_bf16
from cifar_fast.training.fit import fit
from cifar_fast.training.prepare import Run, prepare
from cifar_fast.utils.device import choose_device
from cifar_fast.utils.environment import hardware, versions


def examine() -> dict:
    "Everything as JSON-able data; `problems` lists what a user should act on."
    result = {"versions": versions(), "machine": machine(), "data": data(), "cache": cache(),
             "trusted_pickles": {"list": str(trust_list()), "files": len(trusted_sums())}, "self_test": self_test()}
    result["problems"] = [f"self-test: {name}: {outcome}" for name, outcome in result["self_test"]["checks"].items()
                          if outcome != "ok"]
    result["problems"] += [result[part]["problem"] for part in ("data", "cache") if result[part].get("problem")]
    return result


def machine() -> dict:
    device = choose_device()
    no_compiler = why_not(device)
    return {**hardware(), "device": str(device), "precision": choose_precision("auto", device),
            "cpu_has_bf16": cpu_has_bf16(), "compiles": no_compiler is None,
            **({"why_not": no_compiler} if no_compiler else {})}


def data() -> dict:
    "Where CIFAR-10 is read from, and the other datasets that have a name."
    named = {"named": [name for name in named_datasets() if name != "cifar10"]}
    try:
        tree = named_tree()
        if tree is None:
            official = "the official archive, downloaded once (CIFAR_FAST_DATA may name a folder of it)"
            return {"cifar10": official, **named}
        plan_source("cifar10", 0)
    except (DataError, OSError) as e:
        return {"cifar10": "not usable", "problem": str(e), **named}
    return {"cifar10": f"image folder {tree}", **named}


def cache() -> dict:
    "Where decoded images and downloads are stored, which datasets are there, and whether there is room for more."
    folder = cache_folder() / "data"
    entries = sorted(p for p in folder.iterdir() if p.is_dir() and "@" in p.name) if folder.is_dir() else []
    downloads = {dataset.folder: folder / dataset.folder for dataset in named_datasets().values() if dataset.folder}
    result = {"folder": str(folder), "holds": {p.name.partition("@")[0]: megabytes(p) for p in entries},
              "downloads": {name: megabytes(p) for name, p in downloads.items() if p.exists()}}
    above = next(p for p in (folder, *folder.parents) if p.exists())
    result["free_mb"] = shutil.disk_usage(above).free // 2**20
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as e:
        result["problem"] = f"{folder} cannot be written ({e.strerror}); set CIFAR_FAST_CACHE to a folder that can"
        return result
    if result["free_mb"] < 400:
        result["problem"] = (f"{folder} has {result['free_mb']} MB left, decoded CIFAR-10 takes 185; make room, or set "
                            f"CIFAR_FAST_CACHE to another disk")
    return result


def megabytes(folder: Path) -> int:
    "Of a folder or file."
    return sum(p.stat().st_size for p in (folder, *folder.rglob("*")) if p.is_file()) // 2**20


# ---------------------------------------------------------------- the self-test


class SelfTestError(Exception):
    "A check whose result is wrong."


def self_test() -> dict:
    "One epoch of `sprint` on part of digits, twice; export, load, predict. Each check is 'ok' or the error."
    start, checks = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as tmp:
        steps = [("gradients", check_gradients), ("data", lambda _: small_digits(Path(tmp))),
                 ("training", check_training), ("same seed, same weights", check_seed),
                 ("export and prediction", lambda run: check_export(run, Path(tmp)))]
        state = None  # passed from check to check: the data, then the trained run
        for name, step in steps:
            try:
                state, checks[name] = step(state), "ok"
            except Exception as e:  # any failure is what doctor should report
                checks[name] = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
                break
    return {"checks": checks, "seconds": round(time.perf_counter() - start, 1)}


FORMATS = {torch.channels_last: "channels_last", torch.contiguous_format: "contiguous"}
RESULTS = ("output", "gradient of the image", "gradient of the weights")
CHANNELS = 24  # not a multiple of 16, for which kernels have a case of their own
DEPTHWISE = dict(groups=CHANNELS)
CONVOLUTIONS = [(1, {}), (3, {}), (3, dict(dilation=2)), (4, dict(stride=2)), (3, DEPTHWISE), (5, DEPTHWISE),
                *((3, dict(DEPTHWISE, **more)) for more in (dict(stride=2), dict(dilation=2), dict(dilation=4)))]


def check_gradients(_) -> None:
    """Those of convolutions on the device and in the precision that `auto` chooses, against float32 on the CPU.

    A library's kernel may be wrong on one kind of processor, for one shape and memory format; training then goes on,
    and learns less.
    """
    device = choose_device()
    precision = choose_precision("auto", device)
    if precision == "fp32" and device.type == "cpu":
        return
    convolution_gradients.install()
    dtype = DTYPES.get(precision, torch.float32)
    draw = torch.Generator().manual_seed(0)
    for (kernel, how), side, memory_format in product(CONVOLUTIONS, (8, 32), FORMATS):
        x = torch.randn(8, CHANNELS, side, side, generator=draw).to(dtype)
        weight = torch.randn(CHANNELS, CHANNELS // how.get("groups", 1), kernel, kernel, generator=draw).to(dtype)
        x, weight = (t.contiguous(memory_format=memory_format) for t in (x, weight))
        ours = gradients(x, weight, how, device, dtype)
        exact = gradients(x, weight, how, torch.device("cpu"), torch.float32)
        for name, found, expected in zip(RESULTS, ours, exact, strict=True):
            off = float((found.float().cpu() - expected).norm() / expected.norm())
            if not off < 0.05:  # rounding alone: 0.003
                settings = ", ".join(f"{key}={value}" for key, value in how.items())
                raise SelfTestError(f"{name} of a {kernel}×{kernel} convolution ({settings or 'stride=1'}; maps of "
                                    f"{side}×{side}, {FORMATS[memory_format]}) {off:.0%} off in {precision} on "
                                    f"{device}; train with {'device=cpu' if precision == 'fp32' else 'precision=fp32'}")


def gradients(x: torch.Tensor, weight: torch.Tensor, how: dict, device: torch.device,
              dtype: torch.dtype) -> list[torch.Tensor]:
    "RESULTS of a convolution in `dtype` on `device`, whose loss is half the square of its output."
    x, weight = (t.to(device, dtype).detach().requires_grad_() for t in (x, weight))
    y = F.conv2d(x, weight, padding=how.get("dilation", 1) * (weight.shape[-1] // 2), **how)
    return [y.detach(), *torch.autograd.grad(y, (x, weight), y.detach())]


def small_digits(folder: Path):
    source = load_source("digits", cache=folder)
    few = replace(source.train, images=np.array(source.train.images[:512]), labels=source.train.labels[:512])
    test = replace(source.test, images=np.array(source.test.images), labels=source.test.labels)
    return replace(source, train=few, test=test)


def new_run(source) -> Run:
    return prepare(override(load_recipe("sprint"), ["data=digits", "epochs=1", "bs=64"]), source)


def check_training(source) -> Run:
    run = new_run(source)
    fit(run)
    loss = float(run.learn.recorder.losses[-1])
    if not math.isfinite(loss):
        raise SelfTestError(f"the loss is {loss}")
    return run


def check_seed(run: Run) -> Run:
    again = new_run(run.source)
    fit(again)
    one, other = run.learn.model.state_dict(), again.learn.model.state_dict()
    differ = [k for k in one if not torch.equal(one[k], other[k])]
    if differ and run.device.type == "cpu":  # a GPU adds in any order
        raise SelfTestError(f"{len(differ)} of {len(one)} tensors differ, {differ[0]} for one")
    return run


def check_export(run: Run, folder: Path) -> Run:
    source = run.source
    card = Card(arch=run.recipe.arch, vocab=list(source.vocab), data=Data(name="digits"),
                normalize=Normalization(mean=list(source.mean), std=list(source.std)))
    save_export(folder / "doctor", run.learn.model, card, pickle=False)
    probs = load_export(folder / "doctor").predict(source.test.images)
    if not np.allclose(probs.sum(1), 1, atol=1e-4):
        raise SelfTestError("probabilities do not add up to 1")
    return run


# ---------------------------------------------------------------- as text


def sizes(folders: dict[str, int]) -> str:
    return ", ".join(f"{name} ({size} MB)" for name, size in folders.items())


def as_text(result: dict) -> str:
    m, c, test = result["machine"], result["cache"], result["self_test"]
    holds = sizes(c["holds"]) or "nothing yet"
    if c["downloads"]:
        holds += f"; downloads of {sizes(c['downloads'])}"
    lines = [
        *(f"{name:<16}{version}" for name, version in result["versions"].items()),
        f"{'CPU':<16}{m['cpu']}, {m['cores']} cores, {m['threads']} threads of torch, "
        f"{'bf16' if m['cpu_has_bf16'] else 'no bf16 (it would be emulated)'}",
        f"{'GPU':<16}{m['gpu'] or 'none'}",
        f"{'device=auto':<16}{m['device']}, precision=auto {m['precision']}, torch.compile "
        f"{'works' if m['compiles'] else 'does not work: ' + m['why_not']}",
        f"{'CIFAR-10':<16}{result['data']['cifar10']}",
        f"{'other datasets':<16}{', '.join(result['data']['named'])}, hf:owner/name",
        f"{'cache':<16}{c['folder']}: {holds}; {c['free_mb']:,} MB free",
        f"{'trusted .pkl':<16}{result['trusted_pickles']['files']} in {result['trusted_pickles']['list']}",
        *(f"{'self-test':<16}{name}: {outcome}" for name, outcome in test["checks"].items()),
        f"{'':<16}{test['seconds']} s",
    ]
    return "\n".join([*lines, *(f"to do: {problem}" for problem in result["problems"])])
