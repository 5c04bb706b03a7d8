"""A run by its model.onnx: the same predictions as in torch, without torch; and when torch is used after all."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from serving import CARD

from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_parts import Calibration
from cifar_fast.export.files import ONNX, WEIGHTS
from cifar_fast.export.load import load_model
from cifar_fast.export.onnx_predictor import OnnxPredictor
from cifar_fast.export.predict_files import predict_files
from cifar_fast.export.predictor import Predictor, load_export
from cifar_fast.export.save import save_export
from cifar_fast.export.targets import onnx
from cifar_fast.models import create_model

HEAVY = ("torch", "timm", "fastai", "torchvision", "albumentations", "pandas", "matplotlib", "onnx")
TEMPERED = Calibration(temperature=1.7, images="held-out", n=10, error_before=0.1, error_after=0.05)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A run with random weights, a temperature and model.onnx."
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("made") / "net"
    model = create_model("cifar_sprint", 10).eval()
    with torch.no_grad():  # predictions that differ from image to image
        for parameter in list(model.parameters())[-2:]:
            parameter.mul_(40)
    card = save_export(folder, model, replace(CARD, calibration=TEMPERED), pickle=False)
    onnx.make(folder, card, model)
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "net")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)


@pytest.fixture
def files(tmp_path, images):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, pixels in enumerate(images):
        Image.fromarray(pixels).resize((60, 40)).save(folder / f"{i}.jpg")
    (folder / "3.jpg").write_bytes(b"no image")
    return folder


def test_in_torch_on_a_cpu_the_folded_model_predicts(run, images, monkeypatch):
    opened = load_export(run)
    expected = replace(opened, folded=None).predict(images)
    assert np.abs(opened.predict(images) - expected).max() < 1e-5
    with monkeypatch.context() as m:
        m.setattr(opened.model, "forward", None)  # not called
        opened.predict(images), opened.logits(images)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in opened.folded.modules())
    assert opened.model.state_dict().keys() == create_model("cifar_sprint", 10).state_dict().keys()


@pytest.mark.parametrize("temperature", [None, 1.0, 0.4, 10.0, 50.0])
@pytest.mark.parametrize("tta", [False, True])
def test_probabilities_are_those_of_torch(made, images, temperature, tta):
    ours, torchs = load_model(made), load_export(made)
    assert isinstance(ours, OnnxPredictor) and ours.temperature == torchs.temperature == 1.7
    if temperature:
        ours, torchs = replace(ours, temperature=temperature), replace(torchs, temperature=temperature)
    expected = torchs.predict(images, tta)
    assert np.abs(ours.predict(images, tta) - expected).max() < 1e-4
    assert temperature or expected.std(0).max() > 0.01  # the images do differ
    assert np.abs(ours.predict(images, tta, bs=2) - expected).max() < 1e-4
    assert [ours.label(p) for p in ours.predict(images)] == [torchs.label(p) for p in torchs.predict(images)]
    assert ours.predict(images[:0]).shape == torchs.predict(images[:0]).shape


def test_what_only_torch_can_is_done_there(made, images):
    ours, torchs = load_model(made), load_export(made)
    assert np.allclose(ours.logits(images), torchs.logits(images), atol=1e-5)
    assert isinstance(ours.model, torch.nn.Module) and ours.torch is ours.torch
    assert isinstance(load_model(made, "auto"), Predictor) and isinstance(load_model(made, "cpu"), OnnxPredictor)


def fresh(code: str, *args) -> dict:
    "The last line that `code` prints, read as JSON, in a process of its own."
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_predict_and_serve_import_no_torch(made, files):
    "The first page and its predictions too; what torch is needed for, Grad-CAM, is asked for afterwards."
    found = fresh("""if True:
        import json, sys
        from pathlib import Path
        from cifar_fast.cli.main import main
        run, image = sys.argv[1:3]
        assert main(["predict", run, image, "--tta", "--threshold", "0.1"]) == 0
        after_predict = [n for n in sys.argv[3:] if n in sys.modules]
        from cifar_fast.export.load import load_model
        from cifar_fast.serve.app import create_app
        from starlette.testclient import TestClient
        client = TestClient(create_app(load_model(run), "net", Path(run).parent), base_url="http://127.0.0.1:8000")
        page = client.get("/")
        given = {"images": ("a.jpg", open(image, "rb").read(), "image/jpeg")}
        response = client.post("/predict", files=given, headers={"X-Part": "1"})
        after_serve = [n for n in sys.argv[3:] if n in sys.modules]
        maps = client.post("/gradcam", files=given)
        print(json.dumps([after_predict, after_serve, page.status_code, response.status_code,
                          response.text.count("<img"), maps.text.count("overlay"), "torch" in sys.modules]))
    """, made, files / "1.jpg", *HEAVY)
    assert found == [[], [], 200, 200, 1, 1, True]


def test_a_run_without_its_weights_predicts_but_has_no_grad_cam(run, images):
    from cifar_fast.serve.classify import Classifier

    expected = load_export(run).predict(images)
    (run / WEIGHTS).unlink()
    model = load_model(run)
    assert np.allclose(model.predict(images), expected, atol=1e-4)
    assert Classifier(model).grad_cams(images[:1], expected[:1]) == [None]


def other_temperature(run):
    replace(read_card(run), calibration=replace(TEMPERED, temperature=2.5)).write(run)


def other_weights(run):
    torch.manual_seed(1)
    save_export(run.with_name("other"), create_model("cifar_sprint", 10), CARD, pickle=False)
    card = replace(read_card(run.with_name("other")), calibration=TEMPERED)
    shutil.copy(run.with_name("other") / WEIGHTS, run)
    card.write(run)


def other_classes(run):
    card = read_card(run)
    replace(card, vocab=card.vocab[::-1]).write(run)


def cut(run):
    (run / ONNX).write_bytes((run / ONNX).read_bytes()[:-1000])


@pytest.mark.parametrize("change, named", [(other_temperature, "temperature"), (other_weights, "weights"),
                                           (other_classes, "classes"), (cut, "")])
def test_a_file_that_does_not_fit_its_run_is_named_and_torch_used(run, images, change, named):
    change(run)
    with pytest.warns(UserWarning, match=named) as warned:
        model = load_model(run)
    assert str(run / ONNX) in str(warned[0].message) and "--to onnx" in str(warned[0].message)
    assert isinstance(model, Predictor)
    assert np.array_equal(model.predict(images), load_export(run).predict(images))


def test_files_are_predicted_in_order_and_bad_ones_named(made, files):
    model, paths = load_model(made), sorted(files.iterdir())
    found = list(predict_files(model, paths, bs=2))
    assert [path for path, *_ in found] == paths
    for path, probs, reason in found:
        if path.name == "3.jpg":
            assert probs is None and str(path) in reason
        else:
            assert reason is None and np.allclose(probs, model.predict(model.read(path)[None])[0], atol=1e-5)


def test_no_more_files_are_decoded_ahead_than_two_batches(made, files, monkeypatch):
    asked = []
    monkeypatch.setattr(OnnxPredictor, "read", lambda self, path: asked.append(path) or np.zeros((32, 32, 3), np.uint8))
    results = predict_files(load_model(made), [files / "1.jpg"] * 100, bs=5)
    next(results)
    results.close()
    assert 5 <= len(asked) <= 15


def test_the_command_takes_a_device(made, files, capsys):
    assert main(["predict", str(made), str(files / "1.jpg"), "--json"]) == 0
    by_onnx = json.loads(capsys.readouterr().out)[0]["probabilities"]
    assert main(["predict", str(made), str(files / "1.jpg"), "--json", "--device", "auto"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["probabilities"] == pytest.approx(by_onnx, abs=1e-4)
    assert main(["predict", str(made), str(files / "1.jpg"), "--device", "tpu"]) == 2
    assert "device=tpu" in capsys.readouterr().err


def test_a_temperature_too_high_for_a_file_alone_is_refused_at_the_start(made, files, tmp_path, capsys):
    lone = Path(shutil.copy(made / "model.onnx", tmp_path / "lone.onnx"))
    for args in (["predict", str(lone), str(files / "1.jpg")], ["serve", str(lone)]):
        assert main([*args, "--temperature", "14"]) == 2  # 1.7 in the file, times 8
        assert "--temperature 14: a model file on its own takes up to 13.6" in capsys.readouterr().err
    assert main(["predict", str(lone), str(files / "1.jpg"), "--temperature", "13"]) == 0
    assert main(["predict", str(made), str(files / "1.jpg"), "--temperature", "14"]) == 0
