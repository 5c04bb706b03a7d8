"""Shards made by Ray Data over a cluster: https://docs.ray.io/en/latest/data/data.html

An actor of Ray watches a worker process as this machine does, so that an image that ends processes never ends Ray's
own. What dies with an actor or a node is done again by Ray, a few times, and by another round after that; a shard is
written here, under its number, so that doing it twice gives one.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from cifar_fast import __version__
from cifar_fast.export.bulk.job import BulkError, Job, model_file
from cifar_fast.export.bulk.pool import TRIES, Pool
from cifar_fast.export.bulk.predict import Make
from cifar_fast.export.bulk.worker import Task
from cifar_fast.export.files import file_sha256
from cifar_fast.utils.files import atomic_write, expand_path
from cifar_fast.utils.log import log_progress, verbose
from cifar_fast.utils.text import printable

INSTALL = "pip install 'cifar_fast[ray]'"


def on_ray(address: str | None) -> Make:
    "An engine on the cluster at `address`, None: one on this machine alone. Raises BulkError."
    try:
        import ray.data  # noqa: F401
    except ImportError as e:
        raise BulkError(f"--engine ray needs the package ray ({e}): {INSTALL}, here and on each node of the "
                        f"cluster") from None

    def make(job: Job, tasks: Iterable[Task], procs: int, beat) -> Iterator[int]:
        if job.engine != "OnnxPredictor":
            raise BulkError(f"--engine ray runs a model.onnx: python -m cifar_fast export {job.export} --to onnx makes "
                            f"it (and leave out --device)")
        with connected(address, procs):
            check_nodes()
            yield from rounds(for_nodes(job), list(tasks), procs, by_client(address))

    return make


class connected:
    "A cluster for the block; one that this process is connected to already is left so."

    def __init__(self, address: str | None, procs: int):
        self.address, self.procs, self.ours = address, procs, False

    def __enter__(self):
        import ray

        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = {} if self.address else {"num_cpus": self.procs, "include_dashboard": False}
        try:
            ray.init(self.address, log_to_driver=verbose(), logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError, RuntimeError) as e:
            raise BulkError(f"no Ray cluster answers at --address {printable(self.address)}: {printable(e)[:300]}; ray "
                            f"start --head begins one") from None
        self.ours = True

    def __exit__(self, *exc):
        import ray

        if self.ours:
            ray.shutdown()


def check_nodes() -> None:
    "Raise BulkError where a node of the cluster lacks this package, or has another version of what runs the model."
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def there():  # inside, so that Ray sends its code: a node may lack this very module
        from importlib.metadata import PackageNotFoundError, version

        def of(name):
            try:
                return version(name)
            except PackageNotFoundError:
                return None
        try:
            from cifar_fast import __version__
        except ImportError:
            __version__ = None
        return {"cifar_fast": __version__, **{name: of(name) for name in ("onnxruntime", "numpy", "pillow", "pyarrow")}}

    here = {"cifar_fast": __version__, **{n: version(n) for n in ("onnxruntime", "numpy", "pillow", "pyarrow")}}
    for node in [n for n in ray.nodes() if n["Alive"]]:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        found = ray.get(ray.remote(num_cpus=0, scheduling_strategy=strategy)(there).remote())
        if different := [f"{name} {found[name] or 'missing'} instead of {mine}" for name, mine in here.items()
                         if found[name] != mine]:
            raise BulkError(f"the node {node['NodeManagerHostname']} of the cluster has {', '.join(different)}: every "
                            f"node needs the same packages, {INSTALL.replace('[ray]', f'[ray]=={__version__}')}")


def by_client(address: str | None) -> bool:
    "Whether this machine is no node of the cluster, but speaks to one through Ray Client."
    return bool(address) and address.startswith("ray://")


Model = tuple[Job, bytes, str]
"A job, the content of its model.onnx, and the folder that relative paths of images start from."


def rounds(model: Model, tasks: list[Task], procs: int, client: bool = False) -> Iterator[int]:
    "Yields the index of each shard that is written."
    left = {task.index: task for task in tasks}
    for _ in range(TRIES):
        for index, content, error in (round_there if client else one_round)(model, list(left.values()), procs):
            if error:
                raise BulkError(error)
            task = left.pop(index, None)
            if task:  # Ray may do a task twice
                with atomic_write(task.target) as tmp:
                    tmp.write_bytes(content)
                yield index
        if not left:
            return
        log_progress(f"predict: {len(left):,} shards were lost with their nodes; once more")


Made = tuple[int, bytes, str]
"Index of a shard, content of its file, error or ''."


def one_round(model: Model, tasks: list[Task], procs: int) -> Iterator[Made]:
    "What comes back."
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # what Ray gives up comes again in the next round
    if not verbose():
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    blocks = [pa.table({"index": [task.index], "sources": pa.array([[os.fsencode(s) for s in task.sources]],
                                                                   pa.list_(pa.binary()))}) for task in tasks]
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray 2.60 deprecates the last two and has nothing for them
        done = ray.data.from_arrow(blocks).map_batches(
            ShardMaker, batch_size=None, batch_format="pyarrow", num_cpus=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(procs, cpus, len(tasks))),
            fn_constructor_args=model,
            max_restarts=-1, max_task_retries=TRIES)  # Ray's own default of the second is for ever
    for batch in done.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in batch.to_pylist():
            yield row["index"], row["content"], row["error"]


class Round:
    "An actor that makes a round: Ray Data works on nodes only, not through Ray Client."

    def __init__(self, model: Model, tasks: list[Task], procs: int):
        self.made = one_round(model, tasks, procs)

    def next(self) -> Made | None:
        return next(self.made, None)


def round_there(model: Model, tasks: list[Task], procs: int) -> Iterator[Made]:
    import ray

    actor = ray.remote(num_cpus=0)(Round).remote(model, tasks, procs)
    try:
        while made := ray.get(actor.next.remote()):
            yield made
    except ray.exceptions.RayActorError:
        return  # its node is gone: what is left comes again in the next round
    finally:
        ray.kill(actor)


def for_nodes(job: Job) -> Model:
    "The job by the content of its model.onnx, which needs no recipe, and what else an actor must know."
    onnx = model_file(expand_path(job.export))
    return replace(job, weights_sha256=file_sha256(onnx), recipe=None), onnx.read_bytes(), os.getcwd()


class ShardMaker:
    "What an actor of Ray does; the model comes as bytes, since a node need not see the run's folder."

    def __init__(self, job: Job, model: bytes, cwd: str):
        self.cwd, self.there = cwd, os.path.isdir(cwd)  # an actor's own folder is that of Ray
        self.folder = tempfile.TemporaryDirectory()
        self.target = Path(self.folder.name) / "shard"
        (path := Path(self.folder.name) / "model.onnx").write_bytes(model)
        self.pool = Pool(replace(job, export=str(path)), 1, cwd if self.there else None).__enter__()

    def __call__(self, batch: pa.Table) -> pa.Table:
        made = [self.make(row["index"], row["sources"]) for row in batch.to_pylist()]
        return pa.table({"index": batch["index"], "content": pa.array([content for content, _ in made], pa.binary()),
                         "error": [error for _, error in made]})

    def make(self, index: int, sources: list[bytes]) -> tuple[bytes, str]:
        "The content of the shard's file, or what ends the whole job: raised here, Ray would try it again."
        names = [os.fsdecode(name) for name in sources]
        if not self.there and (relative := next((n for n in names if "://" not in n and not os.path.isabs(n)), None)):
            return b"", (f"on {os.uname().nodename}: there is no folder {printable(self.cwd)}, which "
                         f"{printable(relative)} is relative to; name the images by absolute paths that every node "
                         f"sees, or by a URI")
        task = Task(index, [name if "://" in name else Path(name) for name in names], self.target)
        try:
            list(self.pool.run([task]))
            return self.target.read_bytes(), ""
        except Exception as e:
            return b"", f"on {os.uname().nodename}: {printable(e)}"
