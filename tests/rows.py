"""A made-up row of results.csv, for tests that need no run."""

from cifar_fast.reporting.results import COLUMNS


def made(**values):
    "A row of text, as `read` gives it."
    usual = {"recipe": "final", "recipe_id": "aaaaaaaa", "seed": "42", "epochs": "24", "accuracy": "0.9",
             "split": "test",
             "selected_on_test": "False", "images": "10000", "seconds": "100",
             "parameters": "192642", "receptive_field": "65", "multiply_adds": "21911760",
             "data": "cifar10", "device": "cpu (x86_64)", "precision": "fp32", "date": "2026-11-21",
             "commit": "0123456789ab"}
    return {**dict.fromkeys(COLUMNS, ""), **usual, **{k: str(v) for k, v in values.items()}}
