"""Runs benchmarks one after the other and formats their results as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module

from cifar_fast.bench import BENCHMARKS
from cifar_fast.utils.environment import hardware, versions
from cifar_fast.utils.tables import aligned


def benchmark(
    names: Iterable[str],  # of BENCHMARKS
    rounds: int,  # measurements of each side of a comparison
    show: Callable[[str], object] = lambda text: None,  # called with the text of each part as soon as it is ready
) -> dict:
    """All measurements as JSON-able data.

    {"hardware", "versions", "rounds", "benchmarks": {name: {"comparisons": {title: see `timing.compare`}, …}}}
    """
    result = {"hardware": hardware(), "versions": versions(), "rounds": rounds, "benchmarks": {}}
    show(heading(result))
    for name in names:
        measured = import_module(f"cifar_fast.bench.{name}").measure(rounds)
        result["benchmarks"][name] = measured
        show(report(name, measured))
    return result


def heading(result: dict) -> str:
    h = result["hardware"]
    gpu, busy = h["gpu"] or "no GPU", "" if h["load"] is None else f", load {h['load']} at the start"
    cores, threads = (f"{n} {word}{'s' * (n != 1)}" for n, word in ((h["cores"], "core"), (h["threads"], "thread")))
    return (f"{h['cpu']}, {cores}, {threads}, {gpu}{busy}\n"
            f"{', '.join(f'{k} {v}' for k, v in result['versions'].items())}\n"
            f"medians of {result['rounds']} rounds; ratios are computed per round, ranges are min–max")


def report(name: str, measured: dict) -> str:
    "The result of one benchmark as text."
    lines = ["", f"{name}: {BENCHMARKS[name]}"]
    lines += [line for title, c in measured["comparisons"].items() for line in comparison(title, c)]
    for title, rows in measured.get("tables", {}).items():
        lines += [f"  {title}", *table(rows)]
    return "\n".join(lines + [f"  {n}" for n in measured.get("notes", ())])


def comparison(title: str, c: dict) -> list[str]:
    "Two lines: ratio and verdict, then both figures."
    low, high = c["spread"]
    lines = [f"  {title}", f"    ratio {c['ratio']:.2f} ({low:.2f}–{high:.2f}): {number(c['measured'])} against "
             f"{number(c['reference'])} {c['unit']} of {c['against']}"]
    if "difference_s" in c:
        lines[-1] += f", {c['difference_s']:+.2f} s"
    return lines + ([f"    {verdict(c)}"] if c["must"] is not None or c["goal"] is not None else [])


def verdict(c: dict) -> str:
    "Whether the bars of a comparison are met: 'ratio, at least 0.7: meets; goal 0.9: below'."
    shown = [f"{word}{c[key]:g}: {'meets' if c[met] else misses(c)}"
             for word, key, met in (("", "must", "meets"), ("goal ", "goal", "meets_goal")) if c[key] is not None]
    return f"{c['bar']} {'; '.join(shown)}"


def misses(c: dict) -> str:
    return "above" if c["bar"].endswith("most") else "below"


def number(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def table(rows: list[dict]) -> list[str]:
    "Rows with the same keys as aligned lines: text flush left, figures flush right."
    def cell(v):
        return "–" if v is None else f"{v:,}" if isinstance(v, int) else str(v)

    text_columns = {i for i, v in enumerate(rows[0].values()) if isinstance(v, str)}
    return [f"    {line}" for line in aligned([list(rows[0]), *([cell(v) for v in row.values()] for row in rows)],
                                              left=text_columns)]
