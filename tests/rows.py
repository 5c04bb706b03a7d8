"""A made-up row of results.csv, and a made-up card, for tests that need no run."""

import pandas as pd

from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Audited, BestEpoch, Data, Machine, Metrics, Normalization, Seconds
from cifar_fast.recipe import describe, load_recipe
from cifar_fast.reporting.compare.table import table
from cifar_fast.reporting.results import COLUMNS, summarize

CARD = Card(arch="cifar_net", vocab=["a", "b"], normalize=Normalization(mean=[0.5] * 3, std=[0.2] * 3), name="net",
            recipe=describe(load_recipe("net")), settings="epochs=2", epochs=2, split="test",
            metrics=Metrics(n=1000, accuracy=0.8, accuracy_tta=0.81), date="2026-11-21", data=Data(name="cifar10"),
            last_epoch={"train_loss": 1.23456, "valid_accuracy": 0.79}, best_epoch=BestEpoch(epoch=1, accuracy=0.8),
            seconds=Seconds(training=12.345, epoch=6.1),
            audit=Audited(params=199_368, receptive_field=49, macs=200_109_216),
            machine=Machine(device="cpu", threads=2, precision="fp32", compiled=False))


def made(**values):
    "A row of text, as `read` gives it."
    usual = {"recipe": "final", "recipe_id": "aaaaaaaa", "seed": "42", "epochs": "24", "accuracy": "0.9",
             "split": "test",
             "selected_on_test": "False", "images": "10000", "seconds": "100",
             "parameters": "192642", "receptive_field": "65", "multiply_adds": "21911760",
             "data": "cifar10", "device": "cpu (x86_64)", "precision": "fp32", "date": "2026-11-21",
             "commit": "0123456789ab"}
    return {**dict.fromkeys(COLUMNS, ""), **usual, **{k: str(v) for k, v in values.items()}}


def rows_of(*rows):
    "The table of rows that are an experiment each."
    return table(summarize(pd.DataFrame([{**r, "recipe_id": r["recipe"]} for r in rows], dtype=str), {}))
