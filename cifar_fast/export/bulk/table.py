"""Predictions as a table (pyarrow), and shards of it joined into one file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cifar_fast.utils.files import atomic_write, with_path_in_error
from cifar_fast.utils.text import encodable, printable

ROWS, BYTES = 2**16, 2**25
"Of a row group of the joined file: at most about so many are in memory."


def table_of(rows: Iterable[tuple], model, topk: int) -> pa.Table:
    """A table of (path, probabilities (C,) or None, reason or None).

    Columns: file, label, probability; label_2, probability_2 … up to `topk`, or with 0 probability_CLASS for each
    class; error. What an image that could not be read lacks is null.
    """
    rows = list(rows)
    good = np.array([probs is not None for _, probs, _ in rows], bool)
    probs = np.zeros((len(rows), len(model.vocab)), np.float32)
    for i, (_, values, _) in enumerate(rows):
        if values is not None:
            probs[i] = values
    vocab, order = np.array(model.vocab, object), np.argsort(-probs, axis=1, kind="stable")
    ranked = np.take_along_axis(probs, order, 1)

    def column(values, kind):
        return pa.array(values, kind, mask=~good)

    columns = {"file": pa.array([encodable(path) for path, *_ in rows], pa.string()),
               "label": column([model.label(p) for p in probs], pa.string()),
               "probability": column(ranked[:, 0], pa.float32())}
    for k in range(1, min(topk, len(vocab))):
        columns |= {f"label_{k + 1}": column(vocab[order[:, k]], pa.string()),
                    f"probability_{k + 1}": column(ranked[:, k], pa.float32())}
    if not topk:
        columns |= {f"probability_{name}": column(probs[:, c], pa.float32()) for c, name in enumerate(model.vocab)}
    columns["error"] = pa.array([reason and reason.removeprefix(f"{printable(path)}: ") for path, _, reason in rows],
                                pa.string())
    return pa.table(columns)


def write_shard(table: pa.Table, path: Path) -> None:
    with atomic_write(path) as tmp:
        pq.write_table(table, tmp)


def join(shards: list[Path], out: Path) -> None:
    "One .parquet or .csv file of all rows in order; whole, or not there."
    with atomic_write(out) as tmp:
        if out.suffix == ".csv":
            with open(tmp, "w", encoding="utf-8", newline="") as file:
                for i, table in enumerate(groups(shards)):
                    file.write(csv_of(table, header=not i))
        else:
            with pq.ParquetWriter(tmp, pq.read_schema(shards[0])) as writer:
                for table in groups(shards):
                    writer.write_table(table, row_group_size=ROWS)


def groups(shards: Iterable[Path]) -> Iterator[pa.Table]:
    "The rows of the shards, many at a time."
    waiting: list[pa.Table] = []
    for shard in shards:
        with with_path_in_error(shard):
            waiting.append(pq.read_table(shard))
        if sum(t.num_rows for t in waiting) >= ROWS or sum(t.nbytes for t in waiting) >= BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def csv_of(table: pa.Table, header: bool) -> str:
    from cifar_fast.utils.csv import csv_text

    return csv_text(table.to_pandas(), header)


def unreadable(shards: Iterable[Path]) -> int:
    "How many rows have a reason instead of a prediction."
    return sum(len(column) - column.null_count for shard in shards
               for column in [pq.read_table(shard, columns=["error"])["error"]])
