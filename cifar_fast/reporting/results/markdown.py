"""The tables of exports/README.md, and putting them between their markers."""

from __future__ import annotations

import pandas as pd

from cifar_fast.reporting.results.store import ResultsError
from cifar_fast.reporting.results.summary import by_budget, by_epochs, by_pruning, selected, summarize
from cifar_fast.reporting.results.terminal import averaging_matters, percent, spent, whole
from cifar_fast.utils.tables import markdown_table

START, END = "<!-- results: python -m cifar_fast results --readme -->", "<!-- /results -->"
EARLIER = "; an earlier state of the recipe"
HEAD = ("recipe", "description", "parameters", "RF", "published accuracy", "our accuracy", "training")
REPRODUCTIONS = ("published system", "published, best epoch %", "measured, best epoch %", "difference, points",
                 "measured, last epoch %", "epochs, published and here", "n")


def block(rows: pd.DataFrame, facts: dict[str, dict]) -> str:
    """The text between the markers: recipes on CIFAR-10, those of published systems against what was published, then
    `final` at other numbers of epochs, smaller, and pruned.
    """
    facts = {name: fact for name, fact in facts.items() if fact["data"] == "cifar10"}
    lines = summarize(rows, {name: fact["recipe_id"] for name, fact in facts.items()})
    return "\n\n".join(filter(None, [markdown(lines, facts), reproductions_markdown(lines, facts),
                                     epochs_markdown("final", by_epochs(rows, "final")),
                                     size_markdown("recipe final budget.max_params=", by_budget(rows, "final")),
                                     size_markdown("recipe final init=exports/final prune=", by_pruning(rows, "final"))
                                     ]))


def markdown(lines: pd.DataFrame, facts: dict[str, dict]) -> str:
    "A Markdown table of the recipes in `facts`."
    rows = [HEAD]
    for _, line in lines[lines["recipe"].isin(facts)].iterrows():
        fact = facts[line["recipe"]]
        stated = fact["stated"]
        rows.append((f"`{line['recipe']}`", fact["line"], with_stated(line["parameters"], stated.get("parameters")),
                     with_stated(line["receptive_field"], stated.get("receptive_field")), claim(stated), here(line),
                     training(line)))
    return markdown_table(rows)


def reproductions_markdown(lines: pd.DataFrame, facts: dict[str, dict]) -> str:
    "Published and measured accuracy of the published systems, a line each; empty if none was run."
    rows = [REPRODUCTIONS]
    for _, line in lines[lines["recipe"].isin(facts)].iterrows():
        stated = facts[line["recipe"]]["stated"]
        if not stated or pd.isna(line["best_accuracy"]):
            continue
        difference = 100 * line["best_accuracy"] - stated["accuracy"]
        rows.append((f"`{line['recipe']}`", f"{stated['accuracy']:.2f}", percent(line, "best_accuracy", " ± "),
                     f"{difference:+.2f}".replace("-", "−"), percent(line, "last_accuracy", " ± "),
                     f"{stated['epochs']}, {whole(line['epochs'])}", str(line["n"])))
    return markdown_table(rows) if len(rows) > 1 else ""


def epochs_markdown(name: str, lines: pd.DataFrame) -> str:
    "A recipe's results by number of epochs, a line each; empty if there is only one."
    if len(lines) < 2:
        return ""
    rows = [(f"`recipe {name} epochs=`", "accuracy %", "TTA %", "n", "training")]
    rows += [(line["recipe"], percent(line, "accuracy", " ± "), percent(line, "accuracy_tta", " ± "), str(line["n"]),
              training(line) + earlier(line)) for _, line in lines.iterrows()]
    return markdown_table(rows)


def size_markdown(command: str, lines: pd.DataFrame) -> str:
    "A recipe's results by the last setting of a command, which makes it smaller, a line each; empty if there is one."
    if len(lines) < 2:
        return ""
    rows = [(f"`{command}`", "epochs", "parameters", "multiply-adds", "flash in int8",
             "accuracy %", "n")]
    rows += [(line["recipe"].replace(",", "_"), whole(line["epochs"]), f"{line['parameters']:,.0f}",
              f"{line['multiply_adds'] / 1e6:.1f} M",
              "–" if pd.isna(line["flash"]) else f"{line['flash'] / 1024:.0f} KB",
              percent(line, "accuracy", " ± "), str(line["n"]) + earlier(line)) for _, line in lines.iterrows()]
    return markdown_table(rows)


def earlier(line) -> str:
    return EARLIER if pd.notna(line["current"]) and not line["current"] else ""


def with_stated(true: float, stated: int | None) -> str:
    "The measured figure, and the stated one where it differs."
    if pd.isna(true):
        return f"stated: {stated:,}" if stated else "–"
    return f"{true:,.0f}" + (f" (stated: {stated:,})" if stated and stated != true else "")


def claim(stated: dict) -> str:
    return f"{stated['accuracy']} % in {stated['epochs']} epochs" if stated else "–"


def here(line) -> str:
    "Measured accuracy and TTA accuracy; of a reproduction those of the last and the best epoch."
    if not line["n"]:
        return "not run"
    if selected(line):
        shown = [("last_accuracy", "last epoch"), ("best_accuracy", "best (selected on test)")]
    else:
        shown = [("accuracy", "held-out" if line["split"] == "held-out" else "accuracy"), ("accuracy_tta", "TTA")]
    if averaging_matters(line):
        shown.append(("accuracy_without_ema", "without EMA"))
    parts = [f"{percent(line, figure, ' ± ')} % {name}" for figure, name in shown if pd.notna(line[figure])]
    epochs = f"{whole(line['epochs'])} epoch{'' if line['epochs'] == 1 else 's'}"
    if line["current"]:
        other = ""
    else:
        other = f"; run with `{line['settings']}`" if line["settings"] else EARLIER
    return f"{', '.join(parts)}, {epochs}, n = {line['n']}{other}"


def training(line) -> str:
    "Seconds of training, with hardware, precision and date."
    if not line["n"]:
        return "–"
    reached = "" if pd.isna(line["seconds_to_85"]) else f" (85 % after {whole(line['seconds_to_85'])} s)"
    return f"{spent(line)} s{reached}, {line['device']}{threads(line)}, {line['precision']}, {dates(line)}"


def dates(line) -> str:
    "The day of the runs, or the first and the last one."
    return line["date"] if line["since"] == line["date"] else f"{line['since']} to {line['date']}"


def threads(line) -> str:
    "The number of CPU threads, where the row has it."
    if not (line["threads"] and line["device"].startswith("cpu")):
        return ""
    return f", {line['threads']} thread{'' if line['threads'] == '1' else 's'}"


def replace_block(text: str, table: str, name: str = "README.md") -> str:
    "`text` with `table` between the markers. Raises ResultsError unless each occurs once, in order."
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ResultsError(f"{name} needs these two lines once, in this order, around the table: "
                           f"{START} and {END}")
    before, rest = text.split(START)
    return f"{before}{START}\n{table}\n{END}{rest.split(END)[1]}"
