"""The benchmarks: what they return at tiny sizes; no speeds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar_fast.bench import (
    BENCHMARKS,
    DEFAULT,
    bulk,
    data,
    gradients,
    predict,
    scale,
    serve,
    startup,
    step,
    suite,
    synthetic,
    train,
    workload,
)
from cifar_fast.bench.timing import Bar, compare
from cifar_fast.cli.main import main
from cifar_fast.recipe import load_recipe, override

KEYS = {"ratio", "spread", "measured", "reference", "unit", "against", "rounds", "bar", "must", "goal", "meets",
        "meets_goal"}


def small(name):
    "A recipe that is done in moments: small batches, and no compiler."
    return override(load_recipe(name), ["bs=8", "compile=off", "device=cpu"])


@pytest.fixture(autouse=True)
def sizes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workload, "IMAGES", 64)
    monkeypatch.setattr(workload, "load_recipe", small)
    for module in (data, step):
        monkeypatch.setattr(module, "load_recipe", small)
    for module in (step, train):
        monkeypatch.setattr(module, "steps_of", lambda device: 2)
    monkeypatch.setattr(train, "SMALL", 4)
    monkeypatch.setattr(train, "HOPELESS", 1e9)
    monkeypatch.setattr(train, "why_not", lambda device: "no compiler here")
    monkeypatch.setattr(data, "IMAGES", 64)
    monkeypatch.setattr(predict, "IMAGES", 40)
    monkeypatch.setattr(predict, "TRIED", 20)
    monkeypatch.setattr(predict, "FILES", 6)
    monkeypatch.setattr(predict, "SIZES", (5, 20))
    monkeypatch.setattr(bulk, "FILES", 6)
    monkeypatch.setattr(bulk, "MANY", 8)
    monkeypatch.setattr(bulk, "DISTINCT", 2)
    monkeypatch.setattr(scale, "IMAGES", (16, 32, 64))
    monkeypatch.setattr(scale, "SIDES", (32, 40, 48))


def checked(found: dict, rounds: int) -> dict:
    "The comparisons of what a benchmark returned, once their shape and signs are right; it is JSON and has a text."
    assert json.loads(json.dumps(found)) == found
    for title, c in found["comparisons"].items():
        assert set(c) >= KEYS, title
        assert 0 < c["spread"][0] <= c["ratio"] <= c["spread"][1] < np.inf, title
        assert c["measured"] > 0 and c["reference"] > 0 and c["rounds"] == rounds, title
        assert (c["must"] is None) == (c["meets"] is None) and (c["goal"] is None) == (c["meets_goal"] is None)
    text = suite.report("data", found)
    assert all(title in text for title in found["comparisons"])
    return found["comparisons"]


# ---------------------------------------------------------------- each benchmark, tiny


def test_data():
    found = checked(data.measure(2), 2)
    assert len(found) == 3 * 2 * 2
    assert sum(c["must"] == 0.7 for c in found.values()) == 6  # those of uint8 batches


def test_the_loader_of_the_first_line_ends_at_uint8_and_that_of_the_second_is_normalised():
    source = workload.random_source(32)
    for ready, kind in ((False, "torch.uint8"), (True, "torch.float32")):
        x, y = next(iter(data.loader(small("strided"), source, 0, ready)))
        assert x.shape == (8, 3, 32, 32) and str(x.dtype) == kind


def test_a_process_of_the_bare_loop_that_breaks_is_noticed():
    with pytest.raises(RuntimeError, match="bare loop"):
        data.bare(np.zeros((2, 32, 32, 3), np.uint8), ["no transform"], 2)


def test_gradients(monkeypatch):
    monkeypatch.setattr(gradients, "BATCH", 4)
    monkeypatch.setattr(gradients, "CASES", [(6, 8, 5, 2)])
    (title, found), = checked(gradients.measure(2), 2).items()
    assert title == "5×5, dilation 2, 6 channels at 8×8" and found["unit"] == "batches/s" and found["ratio"] > 0


def test_step():
    found = checked(step.measure(2), 2)
    *seconds_a_step, share = found.values()
    assert [c["must"] for c in seconds_a_step] == [1.1, 1.1] and all(c["unit"] == "s/step" for c in seconds_a_step)
    assert share["unit"] == "GFLOP/s" and share["goal"] == 0.25
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    assert step.operations_a_step(linear, torch.Size((7, 3, 2, 2))) == 7 * 12 * 5 * 2 * 3


def test_the_bare_loop_makes_the_steps_of_the_learner():
    "The same weights after the same batches: no less work, and no other."
    from copy import deepcopy
    from dataclasses import replace


    recipe = replace(small("final"), mix=None, ema=None, precision="fp32", fit=load_recipe("strided").fit, lr=0.05)
    run = workload.prepared(recipe)
    fed = workload.batches(run, 4)
    loop = workload.BareLoop(deepcopy(run.learn.model), recipe, run.precision, run.memory_format)
    loop.steps(workload.plain(fed), 4)
    step.fitted(run, fed)
    for a, b in zip(loop.model.state_dict().values(), run.learn.model.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_train_lists_all_eight_with_reasons():
    found = train.measure(2)
    assert [c["must"] for c in checked(found, 2).values()] == [0.95, 0.95, None]
    rows = found["tables"]["images/s"]
    assert len(rows) == 8 and sum(r["median"] is None for r in rows) == 4
    assert all("no compiler here" in r["note"] for r in rows if "compiled" in r["way"])
    assert sum("its own choice" in r["way"] for r in rows) == 1
    assert "bottleneck" in found["notes"][0]


def test_a_way_that_is_hopelessly_slow_is_left_out(monkeypatch):
    monkeypatch.setattr(train, "probe", lambda run, way, small: 9.0 if way.precision == "bf16" else 1.0)
    monkeypatch.setattr(train, "HOPELESS", 5)
    run = workload.prepared(train.RECIPE)
    ways = [train.Way("fp32", False, False), train.Way("bf16", True, False)]
    assert train.unfit(run, ways, []) == {ways[1]: "eager it takes 9 times as long as fp32 on 4 images"}


def test_predict(tmp_path):
    found = predict.measure(2)
    assert [c["must"] for c in checked(found, 2).values()] == [0.8, 0.8]
    assert found["notes"][0].startswith("random weights") and "640×480" in found["notes"][1]


@pytest.mark.slow  # thirty seconds for three processes; what they do is tested in tests/export
def test_bulk():
    found = bulk.measure(1)
    assert [c["must"] for c in checked(found, 1).values()] == [0.7]
    rows = [list(row.values()) for row in found["tables"]["peak memory"]]
    assert [row[0] for row in rows] == [6, 8] and all(20 < mb < 500 for row in rows for mb in row[1:])
    assert "a million in" in found["notes"][0] and "core hours" in found["notes"][1]


@pytest.fixture
def in_a_thread(monkeypatch):
    "The server in a thread: a process of its own takes seconds to start."
    from contextlib import contextmanager
    from urllib.parse import urlsplit

    from serving import served

    from cifar_fast.export.predictor import load_export
    from cifar_fast.serve.app import create_app

    @contextmanager
    def server(export):
        with served(create_app(load_export(export), "cold", Path(export).parent)) as address:
            yield urlsplit(address).hostname, urlsplit(address).port

    monkeypatch.setattr(serve, "server", server)
    monkeypatch.setattr(serve, "CLIENTS", 3)
    monkeypatch.setattr(serve, "REQUESTS", 2)


def test_serve(in_a_thread):
    found = serve.measure(2)
    assert [title[:3] for title in checked(found, 2)] == ["p50", "p95"]
    p50, p95 = found["comparisons"].values()
    assert p50["measured"] <= p95["measured"] and "3 × 6 requests, none failed" in found["notes"][0]


def test_serve_counts_no_failure_as_an_answer(in_a_thread, monkeypatch):
    monkeypatch.setattr(serve, "jpeg", lambda: b"no image")
    monkeypatch.setattr(serve, "bare", lambda exported, images: None)
    with pytest.raises(RuntimeError, match="answered 422"):
        serve.measure(1)


def test_a_server_that_does_not_start_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(serve.sys, "executable", "true")
    with pytest.raises(RuntimeError, match="did not start"), serve.server(str(tmp_path / "nothing")):
        pass


def test_startup_compares_fresh_processes(monkeypatch):
    "The processes are stood in for: their own seconds would be most of this file's."
    ran = []
    monkeypatch.setattr(startup, "fresh", lambda *args: ran.append(args) or "[]")
    monkeypatch.setattr(startup, "untrained_export", lambda folder, with_onnx=True: (str(folder), "image.png"))
    found = startup.measure(2)
    comparisons = checked({**found, "comparisons": {k: v for k, v in found["comparisons"].items()
                                                    if v["rounds"] == 2}}, 2)
    assert {k: c["must"] for k, c in comparisons.items()} == {"--help": 0.5, "recipes": 0.5,
                                                              "predict one image": 1.0,
                                                              "the same against torch": None,
                                                              "predict one image by torch": 2.0}
    assert found["imported_by_predict"] == [] and any("fastai.vision.all" in a[-1] for a in ran)
    first_step = found["comparisons"]["first step of recipe final"]
    assert first_step["must"] == 2.5 and any(a[1:4] == (startup.TRAIN, "recipe", "final") for a in ran)


def test_a_command_that_takes_no_step_is_no_first_step():
    with pytest.raises(RuntimeError, match="ended without a step"):
        startup.fresh("-c", startup.TRAIN, "recipes")


def test_predict_needs_no_torch_and_the_check_is_real(tmp_path):
    args = list(startup.untrained_export(tmp_path))
    code = f"from cifar_fast.cli.main import main; assert main({['predict', *args]!r}) == 0"
    assert startup.needless(code) == []
    assert "torch" in startup.needless("import torch")


def test_scale(monkeypatch):
    monkeypatch.setattr(scale, "peak", lambda images, side, batch, widths: float(side * batch))
    found = scale.measure(2)
    checked(found, 2)
    assert len(found["comparisons"]) == 6 and len(found["tables"]) == len(found["notes"]) == 3
    assert "peak memory as size^1.00" in found["notes"][1]


@pytest.mark.slow  # three starts of Python
def test_a_fresh_process_tells_its_peak():
    assert 0 < scale.peak(64, 32, 8, (8, 8, 8)) < 2000


def test_power_of_known_growth():
    rows = [{"size": s, "seconds": 3 * s**2} for s in (10, 20, 40)]
    assert scale.power(rows, "seconds") == pytest.approx(2)
    assert scale.power([{"size": 1, "peak_mb": None}, {"size": 2, "peak_mb": None}], "peak_mb") is None


def test_random_images_are_the_same_each_time():
    assert np.array_equal(synthetic.random_images(3), synthetic.random_images(3))


# ---------------------------------------------------------------- the command


def test_json_is_one_object_on_stdout_whatever_is_printed(capsys, monkeypatch):
    def chatty(rounds):
        print("a library speaks")
        return {"comparisons": {"one": compare([1.0] * rounds, [2.0] * rounds, "s")}}

    monkeypatch.setattr(predict, "measure", chatty)
    assert main(["bench", "predict", "predict", "--json", "--rounds", "3"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert "a library speaks" in shown.err
    assert list(result["benchmarks"]) == ["predict"] and result["rounds"] == 3
    assert result["benchmarks"]["predict"]["comparisons"]["one"]["ratio"] == 0.5
    assert {"cpu", "cores", "threads", "gpu"} <= set(result["hardware"]) and "torch" in result["versions"]


def test_a_bar_that_is_missed_is_a_report_and_no_failure(capsys, monkeypatch):
    monkeypatch.setattr(predict, "measure", lambda rounds: {
        "comparisons": {"one": compare([1.0], [2.0], "images/s", Bar(must=0.8))}})
    assert main(["bench", "predict"]) == 0
    assert "at least 0.8: below" in capsys.readouterr().out


def test_the_five_run_by_default_and_others_when_named(monkeypatch):
    ran = []
    monkeypatch.setattr(suite, "benchmark", lambda names, rounds, show: ran.append(tuple(names)))
    assert main(["bench"]) == 0 and main(["bench", "scale"]) == 0
    assert ran == [DEFAULT, ("scale",)] and set(BENCHMARKS) - set(DEFAULT) == {"bulk", "gradients", "procs", "scale",
                                                                           "serve"}


@pytest.mark.parametrize("args, named", [
    (["predct"], "did you mean predict"), (["data", "nothing"], "there are data, step"),
    (["--rounds", "0"], "at least 1"),
])
def test_bad_input_is_refused(args, named, capsys):
    assert main(["bench", *args]) == 2
    err = capsys.readouterr().err
    assert named in err and err.count("\n") == 1
