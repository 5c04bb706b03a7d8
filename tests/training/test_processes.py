"""How processes for one training are started, counted and refused; what they exchange."""

import ast
import json
import os
import signal
import time
from pathlib import Path

import pytest
from processes import fitted, start, wait
from tiny import tiny

import cifar_fast
from cifar_fast.bench import procs
from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card
from cifar_fast.recipe import RecipeError, check
from cifar_fast.training.parallel import choose_procs, require_device, require_procs
from cifar_fast.utils import launch, ranks
from cifar_fast.utils.ranks import Ranks


@pytest.mark.parametrize("changes, names", [
    (["procs=0"], "procs=0"), (["procs=4", "bs=3"], "bs=3"), (["procs=-2"], "procs=-2"),
    (["sync_bn=true", "compile=on"], "sync_bn"),
])
def test_settings_that_cannot_work(changes, names):
    with pytest.raises(RecipeError, match=names):
        check(tiny(*changes))


def test_number_of_processes(monkeypatch):
    monkeypatch.setattr("cifar_fast.training.parallel.CORES", 2)
    assert choose_procs(1, "cpu") == 1 and choose_procs(2, "cpu") == 2
    with pytest.raises(RecipeError, match="procs=3.*2 cores"):
        choose_procs(3, "cpu")
    for cores, chosen in ((1, 1), (2, 2), (64, 2)):
        monkeypatch.setattr("cifar_fast.training.parallel.CORES", cores)
        assert choose_procs(None, "cpu") == chosen
    monkeypatch.setattr("cifar_fast.training.parallel.CORES", 2)
    require_procs(1, Ranks(0, 2))  # torchrun says how many
    with pytest.raises(RecipeError, match="procs=3.*2"):
        require_procs(3, Ranks(0, 2))
    with pytest.raises(RecipeError, match="procs=2"):
        require_procs(2, Ranks())


def test_only_recipe_runs_under_torchrun(monkeypatch, capsys):
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert main(["recipes"]) == 2 and "recipes" in capsys.readouterr().err


def test_variables_without_torchrun_are_ignored(monkeypatch, capsys, digits):
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "3")):
        monkeypatch.setenv(name, value)
    with ranks.joined() as here:
        assert here == Ranks() and "WORLD_SIZE=4" in capsys.readouterr().err
        assert len(fitted("epochs=1")["rows"]) == 1  # fastai would wait for the others
    assert "WORLD_SIZE" not in os.environ


def test_torch_without_gloo_is_refused(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_gloo_available", lambda: False)
    with pytest.raises(ranks.RanksError, match="gloo"):
        ranks.connect(0, 1)


@pytest.mark.parametrize("gpus, backend", [(1, "gloo"), (2, "cpu:gloo,cuda:nccl")])
def test_more_processes_than_gpus_train_on_the_cpu_alone(monkeypatch, gpus, backend):
    backends = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.cuda.get_arch_list", list)
    monkeypatch.setattr("torch.cuda.set_device", lambda _: None)
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: True)
    monkeypatch.setattr("torch.distributed.init_process_group", backends.append)
    ranks.connect(1, 2)
    assert backends == [backend]
    monkeypatch.setattr(ranks, "_here", Ranks(1, 2, 1, 2))
    require_device("cpu")
    if gpus == 1:
        with pytest.raises(RecipeError, match="2 processes.*device=cpu"):
            require_device("auto")


def test_the_benchmark_of_processes_measures_cpus(monkeypatch, tmp_path):
    class Prepared(Exception):
        pass

    def prepared(recipe, images):
        raise Prepared(recipe.device)

    monkeypatch.setattr(procs, "prepared", prepared)
    with pytest.raises(Prepared, match="^cpu$"):
        procs.main(str(tmp_path / "figures"), "sprint")


SCRIPT = """
import os, sys, time
rank = int(os.environ["RANK"])
open(os.path.join(sys.argv[1], f"{rank}-{os.environ['WORLD_SIZE']}-{os.environ['OMP_NUM_THREADS']}"), "w").close()
if rank == 1:
    end = sys.argv[2]
    sys.exit(int(end)) if end.isdigit() else os.kill(os.getpid(), 9)
time.sleep(60 if sys.argv[2] != "0" else 0)
"""


def test_launcher(tmp_path, monkeypatch):
    def run(end):
        return launch.launch(["-c", SCRIPT, str(tmp_path), end], 2, "THE COMMAND")

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = signal.getsignal(signal.SIGTERM)
    assert run("0") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0-2-1", "1-2-1"]
    begun = time.monotonic()
    assert run("2") == 2  # the others are ended
    with pytest.raises(launch.LaunchError, match="process 1 of 2.*SIGKILL.*\n.*THE COMMAND") as e:
        run("killed")
    assert e.value.exit_code == 1 and time.monotonic() - begun < 30
    assert signal.getsignal(signal.SIGTERM) == before  # the launcher's own would stay


@pytest.mark.slow  # five starts of the program; the parts are tested above
def test_procs_starts_the_processes_and_a_kill_ends_them(tmp_path, capfd, digits):
    argv = ["recipe", "sprint", "data=digits", "epochs=2", "bs=128", "procs=2", "report=no", f"exports={tmp_path}"]
    pid = os.fork()
    if pid == 0:
        os._exit(main(argv))
    checkpoint = tmp_path / ".sprint-digits.running" / "checkpoint.pt"
    end = time.monotonic() + 300
    while not checkpoint.exists() and time.monotonic() < end:
        time.sleep(0.1)
    children = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/stat")
                if p.read_text().rpartition(")")[2].split()[1] == str(pid)]
    assert len(children) == 2
    begun = time.monotonic()
    os.kill(children[1], signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert time.monotonic() - begun < 30
    err = capfd.readouterr().err
    assert code == 1 and "was killed (SIGKILL)" in err and "procs=2" in err and "--resume" in err
    assert main([*argv[:2], f"exports={tmp_path}", "data=digits", "--resume"]) == 0
    assert read_card(tmp_path / "sprint-digits").machine.procs == 2


@pytest.mark.parametrize("count", [2, 4])
def test_bytes_of_a_step(tmp_path, monkeypatch, count):
    monkeypatch.setattr(procs, "STEPS", 2)
    monkeypatch.setattr(procs, "IMAGES", 1024)
    assert wait(start(count, lambda: procs.main(tmp_path / "figures", "sprint"), tmp_path / "log")) == [0] * count
    found = json.loads((tmp_path / "figures").read_text())
    expected = 2 * (count - 1) / count * 4 * (122_730 + 672)  # parameters and running statistics
    assert found["processes"] == count and found["bytes/step"] == pytest.approx(expected, rel=0.05)


# ---------------------------------------------------------------- a plain run


def test_a_plain_run_imports_nothing_of_it():
    "torch.distributed, and the modules with it at their top, are imported in functions alone."
    package, with_it, importers = Path(cifar_fast.__file__).parent, set(), {}
    for path in package.rglob("*.py"):
        top = [n for n in ast.parse(path.read_text("utf-8")).body if isinstance(n, ast.Import | ast.ImportFrom)]
        named = {a.name for n in top if isinstance(n, ast.Import) for a in n.names} | {
            n.module for n in top if isinstance(n, ast.ImportFrom)}
        module = ".".join(["cifar_fast", *path.relative_to(package).with_suffix("").parts])
        importers[module] = named
        if any(name.startswith(("torch.distributed", "torch.nn.parallel")) for name in named):
            with_it.add(module)
    assert with_it == {f"cifar_fast.training.callbacks.{name}" for name in ("parallel", "synced_batch_norm")}
    assert {m for m, named in importers.items() if named & with_it} == {"cifar_fast.training.callbacks.parallel"}


def test_a_system_without_all_signals_launches(monkeypatch):
    "Windows has no SIGHUP and no SIGQUIT."
    for name in ("SIGHUP", "SIGQUIT"):
        monkeypatch.delattr(signal, name)
    source = Path(launch.__file__).read_text("utf-8")
    names = {"__name__": "launch"}
    exec(compile(source, launch.__file__, "exec"), names)
    assert names["HANDLED"] == [signal.SIGTERM, signal.SIGINT]
