"""README's snippets for using an export without this package, as they stand there: the same predictions as in torch."""

import base64
import io
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cifar_fast
from cifar_fast.export.predictor import load_export

ROOT = Path(cifar_fast.__file__).parents[1]
RUN = ROOT / "exports" / "final"


def snippet(language: str, having: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    (found,) = (block for block in blocks if having in block)
    return found


def pictures(n: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


def test_onnxruntime_in_python(tmp_path, monkeypatch, capsys):
    (image,) = pictures(1)
    Image.fromarray(image).save(tmp_path / "cat.png")
    (tmp_path / "exports").symlink_to(ROOT / "exports")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet("python", "onnxruntime"), "README.md", "exec"), {})
    name, probability = capsys.readouterr().out.split()
    expected = load_export(RUN).predict(image[None])[0]
    assert name == load_export(RUN).vocab[expected.argmax()]
    assert float(probability) == pytest.approx(expected.max(), abs=1e-4)


def test_litert_in_python(tmp_path, monkeypatch, capsys):
    pytest.importorskip("ai_edge_litert", reason="needs LiteRT's interpreter: pip install ai-edge-litert")
    opened, images = load_export(ROOT / "exports" / "sprint"), pictures(50)
    surest = opened.predict(images).max(1).argmax()  # eight bits change it least
    Image.fromarray(images[surest]).save(tmp_path / "cat.png")
    (tmp_path / "exports").symlink_to(ROOT / "exports")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet("python", "ai_edge_litert"), "README.md", "exec"), {})
    name, probability = capsys.readouterr().out.split()[-2:]
    expected = opened.predict(images[surest][None])[0]
    assert name == opened.vocab[expected.argmax()]
    assert float(probability) == pytest.approx(expected.max(), abs=0.05)


PAGE = """<!doctype html><title>snippet</title><canvas width=32 height=32></canvas>
<script src="ort.wasm.min.js"></script>
<script>
const canvas = document.querySelector("canvas");
async function classify(source) {
  const image = new Image(); image.src = source; await image.decode();
  canvas.getContext("2d").drawImage(image, 0, 0);
SNIPPET
  return [...probabilities.data];
}
</script>"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path):
    "The address of a folder with the page, the runtime of npm and the model, served on this machine."
    from cifar_fast.export.web.runtime import runtime_files

    (tmp_path / "index.html").write_text(PAGE.replace("SNIPPET", snippet("js", "ort.InferenceSession")), "utf-8")
    for name, content in runtime_files().items():
        (tmp_path / Path(name).name).write_bytes(content)
    (tmp_path / "model.onnx").write_bytes((RUN / "model.onnx").read_bytes())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_onnxruntime_web_in_a_page(site, tmp_path_factory):
    pytest.importorskip("selenium", reason="needs selenium: pip install -e '.[dev]'")
    from browsing import CHROMIUM, DRIVER, started

    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver on the PATH")
    images = pictures(20)
    driver = started(tmp_path_factory.mktemp("chromium"))
    try:
        driver.set_script_timeout(60)
        driver.get(site)
        found = [driver.execute_async_script(
            "classify(arguments[0]).then(arguments[1], e => arguments[1](String(e)))", as_url(image))
            for image in images]
    finally:
        driver.quit()
    assert not [error for error in found if isinstance(error, str)]
    assert np.abs(np.array(found) - load_export(RUN).predict(images)).max() < 1e-4


def as_url(image: np.ndarray) -> str:
    Image.fromarray(image).save(content := io.BytesIO(), "png")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
