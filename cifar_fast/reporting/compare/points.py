"""What stands beside our runs in the figure: what others state, none of it run here but as our own reproductions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cifar_fast.audit import profile
from cifar_fast.models import create_model, published_claims
from cifar_fast.recipe import list_recipes, load_recipe
from cifar_fast.reporting import plots
from cifar_fast.reporting.results.summary import selected

COLUMNS = ("label", "kind", "accuracy", "std", "parameters", "multiply_adds", "seconds", "source")
"Accuracy and std in percent; `kind` is ours, published or public."

# (name, parameters, accuracy on CIFAR-10's test set in percent, who states it and how it was trained). None of these
# keeps to the 200,000-parameter rules as a whole. Nobody states their multiply-adds or seconds in the same way, so
# parameters are all they are placed by.
PUBLIC = (
    ("cifar10-tiniest", 97_530, 94.4, "xvel/cifar10-tiniest on GitHub: 200 epochs, mean of 5 runs"),
    ("BSConv WRN-28-2", 190_000, 93.4, "zeiss-microscopy/BSConv on GitHub (Haase and Amthor, 2020)"),
    ("DenseNet-BC-40-12", 176_000, 93.6, "Huang et al., Densely Connected Convolutional Networks, 2017"),
    ("separable-resnet", 450_000, 95.0, "pierandom/separable-resnet on GitHub: 240 epochs"),
    ("MLPerf Tiny ResNet-8", 78_000, 87.21, "mlcommons/tiny on GitHub: the reference model in float"),
)

UNPLACED = ("best public project under these rules", 90.5)
"Its parameters, multiply-adds and seconds are not known: it is a line, not a point."

FLOOR = 80.0
"In percent: recipes below it (runs of one epoch, say) would press all that is of interest into a corner."


def published_points() -> list[dict]:
    "What the authors of the reproduced systems state; multiply-adds, which they do not, are counted on the same net."
    found = []
    for name in list_recipes():
        arch = load_recipe(name).arch
        if stated := published_claims(arch):
            found.append({"label": name, "kind": "published", "accuracy": stated["accuracy"],
                          "parameters": stated["parameters"], "seconds": stated.get("seconds"),
                          "multiply_adds": profile(create_model(arch, 10)).macs,
                          "source": f"{stated['name']}, {stated['hardware']}; {stated['note']}"})
    return found


def public_points() -> list[dict]:
    return [{"label": name, "kind": "public", "accuracy": accuracy, "parameters": parameters, "source": source}
            for name, parameters, accuracy, source in PUBLIC]


def figure_points(rows: pd.DataFrame, floor: float | None = None) -> tuple[pd.DataFrame, str, list[str]]:
    """The points of a table's rows and of others, the dataset they are of, and why which rows are left out.

    Only what was measured on the same images stands in one figure; what others state is of CIFAR-10.
    """
    on = rows["data"].where(rows["data"] != "", "cifar10")  # the first rows had no such column
    data = "cifar10" if (on == "cifar10").any() else on.iloc[0]
    here, shown, left_out = rows[on == data], [], []
    if len(other := rows["run"][on != data]):
        left_out.append(f"{', '.join(other)}: not on {data}")
    if len(unmeasured := here["run"][here["accuracy"].isna()]):
        left_out.append(f"{', '.join(unmeasured)}: no accuracy")
    here = here[here["accuracy"].notna()]
    low = here["accuracy"] * 100 < (floor or 0)
    if low.any() and not low.all():
        left_out.append(f"{', '.join(here['run'][low])}: below {floor:.0f} %")
        here = here[~low]
    for _, line in here.iterrows():
        suffix = " (held-out)" if line["on"] == "held-out" else " (last epoch)" if selected(line) else ""
        shown.append({"label": line["run"] + suffix, "kind": "ours", "accuracy": 100 * line["accuracy"],
                      "std": 100 * line["accuracy_std"], "source": f"n = {line['n']}",
                      **{x: line[x] for x in ("parameters", "multiply_adds", "seconds")}})
    if data == "cifar10":
        shown += published_points() + public_points()
    points = pd.DataFrame(shown, columns=list(COLUMNS))
    figures = ["accuracy", "std", "parameters", "multiply_adds", "seconds"]
    return points.assign(**points[figures].astype(float)), data, left_out


def draw(rows: pd.DataFrame, path: Path, floor: float | None = None) -> str:
    "Leave the figure of a table's rows at `path`; returns what is to be said of it."
    points, data, left_out = figure_points(rows, floor)
    others = {"stated": UNPLACED, "target": 85} if data == "cifar10" else {}
    plots.save(plots.tradeoffs(points, f"accuracy on {data} against what it costs", **others), path)
    hollow = ["hollow in it: what others state; cifar_fast/compare/points.py says who"] if others else []
    return "\n".join([f"drew {path}", *hollow, *(f"not in it: {why}" for why in left_out)])
