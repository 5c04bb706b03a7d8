"""One line a recipe: the mean of its experiment over seeds, with the standard deviation and n."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable

import pandas as pd

from cifar_fast.audit import Budget
from cifar_fast.recipe import Recipe, describe, list_recipes, load_recipe, override
from cifar_fast.reporting.results.rows import recipe_id
from cifar_fast.reporting.results.store import COLUMNS, FIGURES, SCATTERED
from cifar_fast.utils.statistics import mean_interval

SMALLER = re.compile(r"(epochs=\d+ )?budget\.max_params=\d+")
"Settings of a run that only has a smaller budget, and perhaps another number of epochs."

PRUNED = re.compile(r"epochs=\d+ init=exports/(\w+) prune=([\d.]+)")
"Settings of a run that only starts from a trained run, prunes it, and has another number of epochs."

LABEL = 20
"Letters of the settings that tell an experiment from its recipe in a table; they are written out below it."

LATEST = ("settings", "split", "selected_on_test", "data", "date", "commit")


def facts() -> dict[str, dict]:
    "Recipe of the project → its id as it is now, its line, its data, and what the model's authors state about it."
    from cifar_fast.models import published_claims

    known = {}
    for name, line in list_recipes().items():
        recipe = load_recipe(name)
        # What follows a semicolon in the line is the published figure, which has a column of its own.
        known[name] = {"recipe_id": recipe_id(describe(recipe)), "line": line.split(";")[0].rstrip("."),
                       "data": recipe.data, "stated": published_claims(recipe.arch) or {}}
    return dict(sorted(known.items(), key=lambda item: bool(item[1]["stated"])))  # ours, then the reproductions


def summarize(rows: pd.DataFrame, ids: dict[str, str]) -> pd.DataFrame:
    """A line for each recipe of `ids` (name → recipe_id as it is now), then for each other experiment in `rows`.

    A recipe's experiment is all runs of its id, whatever their names; without such a run its latest experiment.
    """
    rows = completed(rows)
    rows = rows.assign(**{figure: pd.to_numeric(rows[figure]).astype(float) for figure in FIGURES})
    # A run named after its seed (sprint-43) belongs to its recipe, even if that has changed since.
    rows["run"] = rows["recipe"]
    named = [name.removesuffix(f"-{seed}") if name.removesuffix(f"-{seed}") in ids else name
             for name, seed in zip(rows["recipe"], rows["seed"], strict=True)]
    rows["recipe"] = pd.Series(named, index=rows.index, dtype=str)
    # Rows without an id, written by hand, are one experiment where their settings are the same.
    rows["experiment"] = rows["recipe_id"].where(rows["recipe_id"] != "", rows["recipe"] + " " + rows["settings"])
    lines, shown = [], set()
    for name, id_ in ids.items():
        current = rows[rows["recipe_id"] == id_]
        runs = latest(rows, name) if current.empty else current
        lines.append(line(name, runs, current=not current.empty))
        shown.update(runs["experiment"])
    # With settings of their own they are an experiment of their own, without them a former state of the recipe.
    former = rows["recipe"].isin(ids) & rows["settings"].eq("")
    others = not_taken_over(rows, ~former & ~rows["experiment"].isin(shown))
    for experiment in dict.fromkeys(others["experiment"]):
        runs = others[others["experiment"] == experiment]
        lines.append(line(common_name(runs, ids), runs, current=None))
    return pd.DataFrame(lines, columns=list(line("", rows.iloc[:0], None)))


def common_name(runs: pd.DataFrame, recipes: Iterable[str]) -> str:
    "Of the runs of an experiment: NAME of NAME-42 and NAME-43, which are named after their seeds; never a recipe's."
    names = {name.removesuffix(f"-{seed}") for name, seed in zip(runs["run"], runs["seed"], strict=True)}
    name = names.pop() if len(names) == 1 and len(runs) > 1 else runs["run"].iloc[0]
    return f"{name} {textwrap.shorten(runs['settings'].iloc[0], LABEL, placeholder=' …')}" if name in recipes else name


def not_taken_over(rows: pd.DataFrame, among: pd.Series) -> pd.DataFrame:
    "Those of the runs `among` (bool) `rows` whose name no other experiment has taken over since."
    last = rows.drop_duplicates("run", keep="last").set_index("run")["experiment"]
    return rows[among & (rows["experiment"] == rows["run"].map(last))]


def completed(rows: pd.DataFrame) -> pd.DataFrame:
    "With every column; '' in those that a table written by hand or by an old version lacks."
    return rows.reindex(columns=list(dict.fromkeys([*rows.columns, *COLUMNS])), fill_value="")


def by_epochs(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    "A line of `summarize` for each number of epochs with which a recipe of the project was run, see `variants`."
    rows = completed(rows)
    counts = sorted({int(n) for n in rows["epochs"] if str(n).isdigit()})
    return variants(rows, name, {str(n): [f"epochs={n}"] for n in counts})


def by_budget(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """A line of `summarize` for each limit of parameters with which a recipe of the project was run, see `variants`.

    Its own limit is among them, with as many epochs. Of a limit that was run with several numbers of epochs, the
    greatest is shown.
    """
    recipe, rows = load_recipe(name), completed(rows)
    small = {words: override(recipe, words.split()) for words in set(rows["settings"]) if SMALLER.fullmatch(words)}
    whole = {f"epochs={n}": override(recipe, [f"epochs={n}"]) for n in {r.epochs for r in small.values()}}
    typed: dict[str, list[str]] = {}
    for words, changed in sorted((small | whole).items(), key=lambda item: (limit(item[1]), item[1].epochs)):
        typed.setdefault(f"{limit(changed):,}", []).append(words)
    return variants(rows, name, typed)


def by_pruning(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    "A line for each fraction of channels that was pruned from a trained run of a recipe, else unchanged."
    rows = completed(rows)
    fractions = {words: found[2] for words in set(rows["settings"])
                 if (found := PRUNED.fullmatch(words)) and found[1] == name}
    lines = summarize(rows[rows["settings"].isin(fractions)], {})
    lines["recipe"] = lines["settings"].map(fractions)
    return lines.sort_values("recipe", key=lambda fraction: fraction.astype(float), ignore_index=True)


def limit(recipe: Recipe) -> int:
    return (recipe.budget or Budget()).max_params


def variants(rows: pd.DataFrame, name: str, typed: dict[str, list[str]]) -> pd.DataFrame:
    """A line of `summarize` for each of these changes (label → as they are typed) with which a recipe was run.

    Where several stand for one label, the last of them that was run is shown. Runs of the recipe as it is now; without
    such runs those of its latest earlier state, `current` being False.
    """
    recipe, run = load_recipe(name), set(rows["recipe_id"])
    own = rows["recipe"].eq(name) | rows["recipe"].str.startswith(f"{name}-")
    ids, current = {}, {}
    for label, words in [(label, words) for label, alternatives in typed.items() for words in alternatives]:
        now = recipe_id(describe(override(recipe, words.split())))
        alike = rows["settings"].eq(words)
        if words == f"epochs={recipe.epochs}":  # which need not be typed
            alike |= rows["settings"].eq("") & rows["epochs"].eq(str(recipe.epochs))
        earlier = [id_ for id_ in rows["recipe_id"][own & alike] if id_]
        if now in run:
            ids[label], current[label] = now, True
        elif earlier and not current.get(label):
            ids[label], current[label] = earlier[-1], False
    lines = summarize(rows[rows["recipe_id"].isin(ids.values())], ids)
    lines = lines[lines["recipe"].isin(ids)]
    return lines.assign(current=[current[label] for label in lines["recipe"]])


def latest(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    "The runs of the experiment that the last row named `name` belongs to."
    own = rows[rows["recipe"] == name]
    return own[own["experiment"] == own["experiment"].iloc[-1]] if len(own) else own


def line(name: str, runs: pd.DataFrame, current: bool | None) -> dict:
    """Mean, standard deviation (n−1) and n over the seeds of one experiment; of a repeated seed the last run counts.

    A figure that one of the runs lacks is left out: the mean of the others would have a smaller n.
    """
    runs = runs[~runs["seed"].duplicated(keep="last") | runs["seed"].eq("")]  # unknown seeds are not the same one
    last = runs.iloc[-1].to_dict() if len(runs) else {}
    figures = {"recipe": name, "recipe_id": last.get("recipe_id"), "current": current if len(runs) else None,
               "n": len(runs), "seeds": " ".join(filter(None, runs["seed"])), "names": several(runs["recipe"])}
    for figure in FIGURES:
        figures[figure] = runs[figure].mean(skipna=False)
        if figure in SCATTERED:
            figures[f"{figure}_std"] = runs[figure].std(ddof=1, skipna=False)
    low, high = mean_interval(list(runs["accuracy"])) or (None, None)
    figures |= {"accuracy_low": low, "accuracy_high": high}  # Student's 95 % interval of the mean
    # Seeds may have run on machines of different speed, of which a mean says little.
    seconds, images = runs["seconds"], runs["images"]
    if images.nunique() > 1:  # no run was measured on their mean
        figures["images"] = math.nan
    figures |= {"images_least": images.min(), "images_most": images.max()}
    figures |= {"seconds_min": seconds.min(skipna=False), "seconds_max": seconds.max(skipna=False)}
    together = {k: ", ".join(dict.fromkeys(v for v in runs[k] if v)) for k in ("device", "threads", "precision")}
    return {**figures, **{k: last.get(k) for k in LATEST}, **together, "since": runs["date"].min()}


def several(names: pd.Series) -> str:
    "The names of runs, where they are not one."
    return ", ".join(dict.fromkeys(names)) if names.nunique() > 1 else ""


def selected(line) -> bool:
    "Whether this line's runs chose their epoch on test, as the published systems did."
    return line["selected_on_test"] == "True"
