"""A model file from a stranger runs nothing and harms nothing: hostile and broken ones, each with a clear message."""

import json
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from strangers import CLASSES, Payload, weights

from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.files import file_sha256
from cifar_fast.export.load import load_model
from cifar_fast.export.predictor import load_export
from cifar_fast.models import create_model


def card_with(**values):
    "Other values in the card, and what they are held against left as it is."
    def spoil(stem):
        path = stem / "card.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return spoil


def card_node(make):
    "Something else than a file where the card should be."
    def spoil(stem):
        path = stem / "card.json"
        path.unlink()
        make(path)
    return spoil


def another_arch(name):
    "Weights of one of timm's other nets, for the size that it has there."
    def spoil(stem):
        torch.manual_seed(0)
        save_file({k: v.contiguous() for k, v in timm.create_model(name, num_classes=10).state_dict().items()},
                  weights(stem))
        card_with(arch=name, sha256=file_sha256(weights(stem)))(stem)
    return spoil


def sparse(stem):
    "Gigabytes that take no room on the disk, under a header that fits."
    with torch.device("meta"):
        wanted, end, listed = create_model("resnext101_32x32d", 10).state_dict(), 0, {}
    for name, t in wanted.items():
        begin, end = end, end + t.numel() * t.element_size()
        kind = {torch.float32: "F32", torch.int64: "I64"}[t.dtype]
        listed[name] = {"dtype": kind, "shape": list(t.shape), "data_offsets": [begin, end]}
    text = json.dumps(listed).encode()
    with open(weights(stem), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + end)
    card = json.loads((stem / "card.json").read_text()) | {"arch": "resnext101_32x32d"}
    card.pop("sha256")
    (stem / "card.json").write_text(json.dumps(card))


def grown(stem):
    "More bytes than the tensors fill, on no disk at all."
    with open(weights(stem), "r+b") as f:
        f.truncate(400 * 2**20)


def everywhere(value, kind):
    "All tensors of a kind filled with a value that is finite and yet spoils every sum."
    def change(state):
        for name, t in state.items():
            if t.is_floating_point() and kind in name:
                t.fill_(value)
    return change


def card_text(text):
    return lambda stem: (stem / "card.json").write_bytes(text.encode() if isinstance(text, str) else text)


def card_bytes(size):
    return lambda stem: (stem / "card.json").write_bytes(b" " * size)


def tensors(change):
    "Change the tensors, with the card's sum made right again: a stranger can do that too."
    def spoil(stem):
        state = load_file(weights(stem))
        change(state)
        save_file(state, weights(stem))
        card_with(sha256=file_sha256(weights(stem)))(stem)
    return spoil


def content(change):
    "Change the bytes of the weights, the sum made right again."
    def spoil(stem):
        weights(stem).write_bytes(change(weights(stem).read_bytes()))
        card_with(sha256=file_sha256(weights(stem)))(stem)
    return spoil


def header(change):
    "Change the header of the weights, as text or as JSON."
    def rewrite(data):
        length = struct.unpack("<Q", data[:8])[0]
        changed = change(json.loads(data[8:8 + length]))
        text = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length:]
    return content(rewrite)


def swap(state):
    "Two tensors of other shapes under each other's names."
    state["features.stem.conv.weight"], state["head.fc.weight"] = (
        state["head.fc.weight"].clone(), state["features.stem.conv.weight"].clone())


def put(name, value):
    return lambda state: state.__setitem__(name, value)


def entry(name, **values):
    return lambda found: {**found, name: {**found[name], **values}}


STEM, HEAD = "features.stem.conv.weight", "head.fc.weight"

HOSTILE = {
    # the card
    "card: empty": (card_text(""), "cannot be read"),
    "card: cut": (card_text('{"format": 2, "arch"'), "cannot be read"),
    "card: a list": (card_text("[1, 2]"), "cannot be read"),
    "card: no UTF-8": (card_text(b"\xff\xfe{}"), "cannot be read"),
    "card: a pickle": (lambda stem: (stem / "card.json").write_bytes(pickle.dumps(Payload())), "cannot be read"),
    "card: nested 100,000 deep": (card_text("[" * 100_000), "cannot be read"),
    "card: 257 MB": (card_bytes(257 * 2**20), "269,484,032 bytes, more than the 268,435,456"),
    "card: a device": (card_node(lambda path: path.symlink_to("/dev/zero")), "no regular file"),
    "card: a pipe": (card_node(os.mkfifo), "no regular file"),
    "card: a folder": (card_node(Path.mkdir), "cannot be read"),
    "card: a link to itself": (card_node(lambda path: path.symlink_to(path.name)), "cannot be read"),
    "card: another format": (card_with(format=99), "has format 99"),
    "card: a number of 10,000 digits": (card_text('{"format": 2' + "0" * 10_000 + "}"), "cannot be read"),
    "arch: unknown": (card_with(arch="cifar_nonesuch"), "no model is called"),
    "arch: a path": (card_with(arch="../../etc/passwd"), r"card\.json: arch: "),
    "arch: another place": (card_with(arch="hf-hub:stranger/model"), r"card\.json: arch: "),
    "arch: a folder": (card_with(arch="local-dir:/tmp/x"), r"card\.json: arch: "),
    "arch: a number": (card_with(arch=7), r"arch: .*not 7"),
    "arch: a list": (card_with(arch=["cifar_sprint"]), r"card\.json: arch: "),
    "arch: another one of ours": (card_with(arch="cifar_final"), "do not fit cifar_final"),
    "arch: a huge one": (card_with(arch="vit_giant_patch14_dinov2"), "do not fit vit_giant"),
    "arch: for images of 224": (another_arch("vit_tiny_patch16_224"), "do not fit vit_tiny_patch16_224: pos_embed"),
    "arch: for windows of 224": (another_arch("swin_tiny_patch4_window7_224"), "do not fit swin_tiny"),
    "arch: for images of 299": (another_arch("inception_v3"), "does not take images of 32×32"),
    "size: none": (card_with(size=0), "size: .*not 0"),
    "size: all memory": (card_with(size=10**6), "size: .*1024, not 1000000"),
    "size: another one": (card_with(size=64), "do not fit cifar_sprint: features.stem.conv.weight"),
    "size: not of this model": (card_with(arch="cifar_mirror", size=50), "cifar_mirror cannot be built for size=50"),
    "resize_mode: unknown": (card_with(resize_mode="stretch"), "resize_mode: .*not 'stretch'"),
    "vocab: one too few": (card_with(vocab=CLASSES[1:]), r"head\.fc\.\w+ is .*needed"),
    "vocab: a million": (card_with(vocab=[str(i) for i in range(1_000_000)]), "vocab: .*10000"),
    "vocab: none": (card_with(vocab=[]), r"vocab: .*at least 1"),
    "vocab: text": (card_with(vocab="airplane"), r"vocab: .*'airplane'"),
    "vocab: numbers": (card_with(vocab=list(range(10))), r"vocab\.0: .*not 0"),
    "vocab: a name of a megabyte": (card_with(vocab=["x" * 2**20, *CLASSES[1:]]), "no class name of up to 1,530"),
    "vocab: a line of its own": (card_with(vocab=["cat\ncifar_fast: all is well", *CLASSES[1:]]), "printable"),
    "vocab: an escape": (card_with(vocab=["\x1b[31mred\x1b]0;mine\x07", *CLASSES[1:]]), "printable"),
    "vocab: half a character": (card_with(vocab=["\ud800", *CLASSES[1:]]), "cannot be read"),
    "vocab: text that runs backwards": (card_with(vocab=["\u202egnp.tac", *CLASSES[1:]]), "printable"),
    "vocab: twice the same": (card_with(vocab=[CLASSES[1], *CLASSES[1:]]), "vocab: a class is named twice"),
    "statistics: none": (card_with(normalize={}), "normalize.mean"),
    "statistics: two": (card_with(normalize={"mean": [0, 0], "std": [1, 1, 1]}), "normalize.mean"),
    "statistics: zero": (card_with(normalize={"mean": [0, 0, 0], "std": [1, 1, 0]}), "normalize.std"),
    "statistics: NaN": (card_with(normalize={"mean": [0, 0, float("nan")], "std": [1, 1, 1]}), "normalize.mean"),
    "statistics: infinite": (card_with(normalize={"mean": [0, 0, 0], "std": [1, 1, float("inf")]}), "normalize.std"),
    "statistics: 400 digits": (card_with(normalize={"mean": [0, 0, 0], "std": [1, 1, 10**400]}), "normalize.std"),
    "statistics: minus 400 digits": (card_with(normalize={"mean": [0, 0, -10**400], "std": [1, 1, 1]}),
                                     "normalize.mean"),
    "statistics: text": (card_with(normalize={"mean": ["0", 0, 0], "std": [1, 1, 1]}), "normalize.mean"),
    "statistics: true": (card_with(normalize={"mean": [True, 0, 0], "std": [1, 1, 1]}), "normalize.mean"),
    "data: text": (card_with(data="cifar10"), r"card\.json: data"),
    "data: a list for a name": (card_with(data={"name": ["x"], "fingerprint": ""}), r"data\.name: "),
    "recipe: a list": (card_with(recipe=[1]), r"card\.json: recipe: "),
    "recipe: a seed below zero": (card_with(recipe={"data": "digits", "seed": -1}), r"card\.json: recipe: its "),
    "recipe: a seed of 60 digits": (card_with(recipe={"data": "digits", "seed": 10**60}), r"card\.json: recipe: its "),
    "recipe: a NUL in the path": (card_with(recipe={"data": "a\0b", "seed": 1}), r"card\.json: recipe: its "),
    "recipe: half a character": (card_with(recipe={"data": "a\ud800b", "seed": 1}), "cannot be read"),
    "sum: another": (card_with(sha256="0" * 64), "another sha256"),
    "sum: a number": (card_with(sha256=5), r"card\.json: sha256: "),
    "metrics: words": (card_with(metrics={"n": 10, "accuracy": "good"}), r"metrics\.accuracy: .*'good'"),
    "metrics: NaN": (card_with(metrics={"n": 10, "accuracy": float("nan")}), r"metrics\.accuracy: "),
    "metrics: more than all": (card_with(metrics={"n": 10, "accuracy": 1.5}), r"metrics\.accuracy: .*1\.5"),
    "date: a list": (card_with(date=["today"]), r"card\.json: date: "),
    "split: another": (card_with(split="both"), r"card\.json: split: "),
    # the weights
    "weights: missing": (lambda stem: weights(stem).unlink(), "is missing"),
    "weights: a folder": (lambda stem: (weights(stem).unlink(), weights(stem).mkdir()), "cannot be read"),
    "weights: a device": (lambda stem: (weights(stem).unlink(), weights(stem).symlink_to("/dev/zero")),
                          "no regular file"),
    "weights: a pipe": (lambda stem: (weights(stem).unlink(), os.mkfifo(weights(stem))), "no regular file"),
    "weights: 1.9 GB of nothing": (sparse, "more than the 536,870,912 that are read"),
    "weights: 400 MB of nothing behind": (grown, "cannot be read"),
    "weights: empty": (content(lambda data: b""), "not a safetensors file, or is truncated"),
    "weights: seven bytes": (content(lambda data: data[:7]), "not a safetensors file, or is truncated"),
    "weights: cut in the header": (content(lambda data: data[:500]), "not a safetensors file, or is truncated"),
    "weights: cut in the tensors": (content(lambda data: data[:-1000]), "cannot be read"),
    "weights: more behind": (content(lambda data: data + b"\0" * 1000), "cannot be read"),
    "weights: a pickle": (content(lambda data: pickle.dumps(Payload())), "not a safetensors file"),
    "weights: torch.save": (lambda stem: (torch.save({"x": Payload()}, weights(stem)),
                                          card_with(sha256=file_sha256(weights(stem)))(stem)), "not a safetensors"),
    "header: 2**63 bytes": (content(lambda data: struct.pack("<Q", 2**63) + data[8:]), "not a safetensors file"),
    "header: two megabytes": (header(lambda h: json.dumps(h).encode() + b" " * 2**21), "at most 1,048,576 are read"),
    "header: no JSON": (header(lambda h: b"x" * 100), "cannot be read"),
    "header: nested deep": (header(lambda h: b"[" * 100_000), "cannot be read"),
    "header: a list": (header(lambda h: [1]), "cannot be read"),
    "header: numbers": (header(lambda h: {"a": 1}), "cannot be read"),
    "header: 6,000 tensors": (lambda stem: save_file({f"t{i}": torch.zeros(0) for i in range(6000)}, weights(stem)),
                              "at most 5,000 are read"),
    "header: places outside": (header(entry(STEM, data_offsets=[0, 10**12])), "cannot be read"),
    "header: places that overlap": (header(entry(STEM, data_offsets=[0, 4])), "cannot be read"),
    "header: places in reverse": (header(entry(STEM, data_offsets=[100, 0])), "cannot be read"),
    "header: another type": (header(entry(STEM, dtype="I32")), r"stem\.conv\.weight is .*needed"),
    "header: an unknown type": (header(entry(STEM, dtype="PICKLE")), "cannot be read"),
    "header: a huge shape": (header(entry(STEM, shape=[2**40, 2**40])), "cannot be read"),
    "header: a negative shape": (header(entry(STEM, shape=[-32, 3, 4, 4])), "cannot be read"),
    "tensors: swapped": (tensors(swap), "is .*needed"),
    "tensors: one missing": (tensors(lambda state: state.pop(HEAD)), r"misses 'head\.fc\.weight'"),
    "tensors: one more": (tensors(put("backdoor", torch.zeros(3))), "has 'backdoor'"),
    "tensors: a path for a name": (tensors(put("../../x", torch.zeros(3))), r"has '\.\./\.\./x'"),
    "tensors: NaN": (tensors(put(HEAD, torch.full((10, 64), float("nan")))), "non-finite"),
    "tensors: infinite": (tensors(put(HEAD, torch.full((10, 64), float("inf")))), "non-finite"),
    "tensors: all of them huge": (tensors(everywhere(3e38, "weight")), "non-finite"),
    "tensors: a variance below zero": (tensors(everywhere(-5.0, "running_var")), "variance below zero"),
    "tensors: half precision": (tensors(put(HEAD, torch.zeros(10, 64, dtype=torch.float16))), "is .*F16.*needed"),
    "tensors: another shape": (tensors(put(HEAD, torch.zeros(10, 65))), r"\[10, 65\].*needed"),
}


def test_there_are_enough_of_them():
    assert len(HOSTILE) >= 90


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_its_reason(export, executed, name):
    spoil, told = HOSTILE[name]
    spoil(export)
    with pytest.raises(ExportError, match=told) as refused:
        load_export(export)
    assert str(export) in str(refused.value) and len(str(refused.value)) < 800
    assert not executed.exists()


@pytest.mark.parametrize("name", [
    "card: a pickle", "card: a pipe", "arch: for images of 224", "vocab: half a character", "statistics: 400 digits",
    "data: a list for a name", "recipe: a NUL in the path", "weights: torch.save", "header: 2**63 bytes",
    "tensors: NaN", "tensors: all of them huge"])
@pytest.mark.parametrize("command", ["predict", "evaluate", "export"])
def test_commands_end_with_two_and_one_line(export, executed, capsys, command, name):
    HOSTILE[name][0](export)
    assert main([command, str(export), *(["x.png"] if command == "predict" else [])]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not executed.exists()


def test_the_good_one_is_opened(export):
    found = load_export(export)
    assert found.vocab == CLASSES and found.predict(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 10)
    assert read_card(export).arch == "cifar_sprint"


def test_no_prediction_is_shown_that_is_not_finite(export, tmp_path, capsys):
    "A net that counts well with black and white, and not with what lies between."
    net = replace(load_export(export), folded=None)
    with torch.no_grad():
        net.model.head.fc.weight.fill_(3e38)
    with pytest.raises(ExportError, match=r"model\.safetensors gives non-finite"):
        net.predict(np.full((1, 32, 32, 3), 100, np.uint8))


def test_a_card_that_says_little_of_its_data_is_enough(export):
    card_with(data={})(export)
    (export / "learner.pkl").unlink()
    assert main(["export", str(export)]) == 0
    assert load_model((export / "learner.pkl"), trust_pickle=True).vocab == CLASSES


def test_escapes_in_a_card_do_nothing_in_a_terminal(export):
    card_with(date="\x1b[2J", commit="\x1b]0;mine\x07", machine={"device": "a\nb"})(export)
    card = read_card(export)
    assert (card.date, card.commit, card.machine.device) == ("\\x1b[2J", "\\x1b]0;mine\\x07", "a\\nb")


@pytest.mark.parametrize("name", [".", "..", "/", ""])
def test_a_folder_is_no_export(name, capsys):
    assert main(["predict", name, "x.png"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_home_of_nobody_is_not_there(capsys):
    assert main(["predict", "~nobody_of_this_name/net", "x.png"]) == 2
    assert "no run ~nobody_of_this_name/net" in capsys.readouterr().err
