"""What an exported page holds: the runtime from npm, its checksum, and a policy that lets it load nothing."""

import hashlib
import io
import os
import tarfile

import pytest

from cifar_fast.export.card import Card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.card_parts import Normalization
from cifar_fast.export.web import runtime
from cifar_fast.export.web.page import page

CONTENT = {name: f"// {name}\n//# sourceMappingURL=x.map\n".encode() for name in runtime.FILES}
ONNX = """<ir_version: 8, opset_import: ["" : 18]>
net (uint8[N,32,32,3] images) => (float[N,3] probabilities) {
  x = Cast<to = 1>(images)
  axes = Constant<value_ints = [1, 2]>()
  means = ReduceMean<keepdims = 0>(x, axes)
  probabilities = Softmax(means)
}"""


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    "A package of a few bytes, an empty cache, and no npm."
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    monkeypatch.setattr(runtime, "FILES", sums)
    monkeypatch.setenv("CIFAR_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv(runtime.VARIABLE, raising=False)


def archive(path, files=CONTENT, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size, member.type, member.linkname = len(content), kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO(content))
    return path


def npm(folder, script):
    "A program called npm."
    (folder / "bin").mkdir()
    (folder / "bin" / "npm").write_text(f"#!/bin/sh\n{script}\n")
    os.chmod(folder / "bin" / "npm", 0o755)


def test_from_npm_once_and_then_from_the_cache(tmp_path):
    npm(tmp_path, f"echo \"$@\" >> {tmp_path}/calls; /bin/cp {archive(tmp_path / 'package.tgz')} made.tgz")
    assert runtime.runtime_files() == CONTENT == runtime.runtime_files()
    assert (tmp_path / "calls").read_text().split()[:2] == ["pack", f"onnxruntime-web@{runtime.VERSION}"]
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    kept = next((tmp_path / "cache").rglob("*.wasm"))
    kept.write_bytes(b"damaged")
    assert runtime.runtime_files() == CONTENT and kept.read_bytes() != b"damaged"


@pytest.mark.parametrize("script", [None, "echo 'npm error network' >&2; exit 1", "exit 0"])
def test_without_npm_or_network_the_command_is_named(tmp_path, script):
    if script:
        npm(tmp_path, script)
    with pytest.raises(ExportError, match=f"npm pack onnxruntime-web@{runtime.VERSION}.*--runtime"):
        runtime.runtime_files()
    assert not list(tmp_path.glob("cache/*"))


def test_all_targets_leave_out_the_page_where_its_runtime_is_missing(tmp_path):
    from cifar_fast.export.convert import chosen

    targets, left_out = chosen(["all"], tmp_path, None)
    assert "html" not in [target.name for target in targets] and "onnx" in [target.name for target in targets]
    assert [text for text in left_out if "npm pack" in text]


def test_a_package_of_ones_own(tmp_path, monkeypatch):
    tgz = archive(tmp_path / "package.tgz")
    assert runtime.runtime_files(tgz) == CONTENT
    with tarfile.open(tgz) as tar:
        tar.extractall(tmp_path, filter="data")
    monkeypatch.setenv(runtime.VARIABLE, str(tmp_path / "package"))
    assert runtime.runtime_files() == CONTENT


@pytest.mark.parametrize("spoil", ["other version", "missing", "link", "cut"])
def test_another_package_is_refused_by_name(tmp_path, spoil):
    first, *rest = CONTENT
    files = {"other version": {**CONTENT, first: b"let another;"}, "missing": {n: CONTENT[n] for n in rest}}
    tgz = archive(tmp_path / "mine.tgz", files.get(spoil, CONTENT),
                  tarfile.SYMTYPE if spoil == "link" else tarfile.REGTYPE)
    if spoil == "cut":
        tgz.write_bytes(tgz.read_bytes()[:60])
    with pytest.raises(ExportError, match="mine.tgz.*onnxruntime-web"):
        runtime.runtime_files(tgz)


def test_the_page_is_the_same_each_time_and_may_load_nothing():
    "Its policy names the scripts that run; nothing in it is an address that a browser would fetch."
    from onnx.parser import parse_model

    card = Card(arch="cifar_sprint", vocab=["a", "</script><b>", "c"],
                normalize=Normalization(mean=[0] * 3, std=[1] * 3))
    onnx = parse_model(ONNX).SerializeToString()
    first = page("net <b>{{data}}", card, onnx, CONTENT)
    assert first == page("net <b>{{data}}", card, onnx, CONTENT)
    assert "net &lt;b&gt;{{data}}" in first and "<b>" not in first and "sourceMappingURL" not in first
    assert "default-src 'none'" in first and "unsafe-inline" not in first
    assert not [word for word in ('src="', 'href="http', "@import", "url(") if word in first]
