"""The points of the figure: our runs, and what others state about their systems (none of it measured here)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cifar_fast.audit import profile
from cifar_fast.models import create_model, published_claims
from cifar_fast.recipe import list_recipes, load_recipe
from cifar_fast.reporting.plots import save
from cifar_fast.reporting.results.summary import selected
from cifar_fast.reporting.tradeoffs import tradeoffs
from cifar_fast.utils.text import printable

COLUMNS = ("label", "kind", "accuracy", "std", "parameters", "multiply_adds", "flash", "seconds", "source")
"Accuracy and std in percent; `kind` is ours, published or public."

# (name, parameters, accuracy on CIFAR-10's test set in percent, who states it and how it was trained). By its published
# layers, cifar10-tiniest meets all rules of the 200,000-parameter budget; the others do not. Their multiply-adds and
# seconds are not stated in comparable ways, so only their parameters are drawn.
PUBLIC = (
    ("cifar10-tiniest", 97_530, 94.4, "xvel/cifar10-tiniest on GitHub: 200 epochs, mean of 5 runs"),
    ("BSConv WRN-28-2", 190_000, 93.4, "zeiss-microscopy/BSConv on GitHub (Haase and Amthor, 2020)"),
    ("DenseNet-BC-40-12", 176_000, 93.6, "Huang et al., Densely Connected Convolutional Networks, 2017"),
    ("separable-resnet", 450_000, 95.0, "pierandom/separable-resnet on GitHub: 240 epochs"),
    ("MLPerf Tiny ResNet-8", 78_000, 87.21, "mlcommons/tiny on GitHub: the reference model in float"),
)

FLOOR = 80.0
"In percent: points below it (recipes of one epoch, for example) would press all the others into a corner."


def published_points() -> list[dict]:
    "What the authors of the reproduced systems state; multiply-adds and flash, which they do not, are of our model."
    points = []
    for name in list_recipes():
        arch = load_recipe(name).arch
        if stated := published_claims(arch):
            measured = profile(create_model(arch, 10))
            points.append({"label": name, "kind": "published", "accuracy": stated["accuracy"],
                           "parameters": stated["parameters"], "seconds": stated.get("seconds"),
                           "multiply_adds": measured.macs, "flash": measured.flash_bytes,
                           "source": f"{stated['name']}, {stated['hardware']}; {stated['note']}"})
    return points


def public_points() -> list[dict]:
    return [{"label": name, "kind": "public", "accuracy": accuracy, "parameters": parameters, "source": source}
            for name, parameters, accuracy, source in PUBLIC]


def figure_points(rows: pd.DataFrame, floor: float | None = None) -> tuple[pd.DataFrame, str, list[str]]:
    """The points of a table's rows and of others, their dataset, and why which rows are left out.

    One figure shows what was measured on the same images: of CIFAR-10, else of the dataset that most rows have, and
    either of its test set or held out of its training set, whichever more rows are. What others state is about
    CIFAR-10's test set.
    """
    on = rows["data"].where(rows["data"] != "", "cifar10")  # old rows have no such column
    data = "cifar10" if (on == "cifar10").any() else on.value_counts().index[0]
    here, left_out = rows[on == data], []
    if len(other := rows["run"][on != data]):
        left_out.append(f"{', '.join(other)}: not on {data}")
    held_out = here["split"] == "held-out"
    of_most = held_out.mean() > 0.5
    if held_out.nunique() > 1:
        images, most = ("test", "held-out") if of_most else ("held-out", "test")
        left_out.append(f"{', '.join(here['run'][held_out != of_most])}: measured on {images} images, most others on "
                        f"{most} ones")
        here = here[held_out == of_most]
    if len(unmeasured := here["run"][here["accuracy"].isna()]):
        left_out.append(f"{', '.join(unmeasured)}: no accuracy")
    here = here[here["accuracy"].notna()]
    low = here["accuracy"] * 100 < (floor or 0)
    if low.any() and not low.all():
        left_out.append(f"{', '.join(here['run'][low])}: below {floor:.0f} %")
        here = here[~low]
    points = [own_point(line) for _, line in here.iterrows()]
    if data == "cifar10":
        points += published_points() + public_points()
    frame = pd.DataFrame(points, columns=list(COLUMNS))
    figures = ["accuracy", "std", "parameters", "multiply_adds", "flash", "seconds"]
    return frame.assign(**frame[figures].astype(float)), data, left_out


def own_point(line: pd.Series) -> dict:
    suffix = " (held-out)" if line["split"] == "held-out" else " (last epoch)" if selected(line) else ""
    return {"label": line["run"] + suffix, "kind": "ours", "accuracy": 100 * line["accuracy"],
            "std": 100 * line["accuracy_std"], "source": f"n = {line['n']}",
            **{figure: line[figure] for figure in ("parameters", "multiply_adds", "flash", "seconds")}}


def stated_target(rows: pd.DataFrame) -> float | None:
    "The target accuracy that recipes among the runs state, if it is one; recipes without one are ignored."
    targets = {load_recipe(name).target for name in rows["run"] if name in list_recipes()} - {None, 0}
    return targets.pop() if len(targets) == 1 else None


def draw_sizes(rows: pd.DataFrame, name: str, path: Path) -> None:
    "Write the figure of a recipe at several sizes (`results.by_budget` as a table), of whatever cost but seconds."
    points, data, _ = figure_points(rows.assign(seconds=None, run=[f"{name}, at most {r}" for r in rows["run"]]))
    save(tradeoffs(points, f"{name} by parameters, accuracy on {data}", joined=True), path)


def draw(rows: pd.DataFrame, path: Path, floor: float | None = None) -> str:
    "Write the figure of a table's rows to `path`, if any has an accuracy; returns what it shows or not, in lines."
    points, data, left_out = figure_points(rows, floor)
    without = [f"left out: {printable(reason)}" for reason in left_out]
    if not (points["kind"] == "ours").any():
        return "\n".join(["no figure: no run has an accuracy", *without])
    with_others = data == "cifar10"
    save(tradeoffs(points, f"Accuracy on {data} by cost", target=stated_target(rows) if with_others else None), path)
    hollow = ["hollow points are stated by others (cifar_fast/reporting/compare/points.py)"] if with_others else []
    return "\n".join([f"drew {path}: accuracy on {printable(data)}", *hollow, *without])
