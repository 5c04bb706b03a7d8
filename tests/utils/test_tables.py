"""Aligned and piped tables, and CSV cells that no spreadsheet runs."""

import csv
import io

import pandas as pd
import pytest

from cifar_fast.utils.csv import csv_text, original_cell, safe_cell
from cifar_fast.utils.tables import aligned, markdown_table
from cifar_fast.utils.text import short_names, shorten, width


def test_columns_are_as_wide_as_their_widest_cell():
    assert aligned([["name", "n"], ["a", "10"], ["longer", "1"]]) == ["name     n", "a       10", "longer   1"]
    assert aligned([["a", "bb", "c"], ["aa", "b", "cc"]], left=2) == ["a   bb   c", "aa  b   cc"]
    assert aligned([["a", "bb", "c"], ["aa", "b", "cc"]], left={0, 2}, gap=" ") == ["a  bb c", "aa  b cc"]


@pytest.mark.parametrize("name, columns", [("苹果", 4), ("e\u0301t", 2), ("हिन्दी", 4), ("plain", 5), ("", 0)])
def test_width_is_that_of_a_terminal(name, columns):
    assert width(name) == columns
    heading, row = aligned([["class", "n"], [name, "1"]])
    assert width(row) == width(heading) == max(columns, 5) + 3


@pytest.mark.parametrize("text, columns, head, short", [
    ("final-a-long-name-44", 16, 0.5, "final-a…-name-44"), ("苹果香蕉西瓜", 7, 1.0, "苹果香…"), ("abc", 3, 0.5, "abc"),
    ("abcdef", 4, 0.0, "…def"), ("苹果香蕉", 5, 0.5, "苹…蕉")])
def test_names_are_shortened_to_columns(text, columns, head, short):
    assert shorten(text, columns, head) == short and width(short) <= columns


@pytest.mark.parametrize("names, columns, short", [
    (["cat", "dog"], 8, ["cat", "dog"]),
    (["species_001_with_legs", "species_002_with_legs"], 12, ["species_001…", "species_002…"]),
    (["species_long_001", "species_long_002"], 8, ["spe…_001", "spe…_002"]),
    (["a_long_name_1_of_some_kind", "a_long_name_2_of_some_kind"], 8, ["0 a_…ind", "1 a_…ind"]),
    (["Tomato_early_blight", "Tomato_late_blight", "species_001_with_legs", "species_002_with_legs"], 12,
     ["Tomato_e…ght", "Tomato_l…ght", "species_001…", "species_002…"]),
    (["cat", "cat", "a_long_name_of_a_cat"], 8, ["cat", "cat", "a_l…_cat"]),
])
def test_short_names_can_be_told_apart(names, columns, short):
    assert short_names(names, columns) == short


def test_cells_cannot_break_a_line_or_reach_the_terminal():
    lines = aligned([["a\nb", "\x1b[31mred\x07"], ["می\u200cروم", "1"]])
    assert len(lines) == 2 and not any(c in "".join(lines) for c in "\n\x1b\x07")
    assert "a\\nb" in lines[0] and "\\x1b[31mred" in lines[0] and "می\u200cروم" in lines[1]


def test_a_markdown_cell_stays_in_its_row():
    assert markdown_table([["a", "b|c"], ["1", "x\ny"]]) == "| a | b\\|c |\n| --- | --- |\n| 1 | x\\ny |"


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\rx", "\n=x", "＝1+1",
                                  "-", "=", "'=1", "''@x", "+٣"])
def test_formulas_are_defused_and_come_back(text):
    assert safe_cell(text) == f"'{text}" and original_cell(safe_cell(text)) == text


@pytest.mark.parametrize("text", ["cat", "", "-0.5", "+1", "1e-3", "-1.5E+10", "it's", "'quoted'", "a=b", "'"])
def test_what_is_no_formula_stays(text):
    assert safe_cell(text) == text == original_cell(text)


def test_line_breaks_stay_in_their_cell():
    frame = pd.DataFrame({"name": ["a\rb", "a\nb", "a\r\nb", 'a"b', "a,b"], "n": [1, 2, 3, 4, 5]})
    lines = list(csv.reader(io.StringIO(csv_text(frame), newline=""), strict=True))
    assert lines == [["name", "n"], *([name, str(n)] for name, n in zip(frame["name"], frame["n"], strict=True))]
    assert csv_text(frame[3:]) == 'name,n\n"a""b",4\n"a,b",5\n'


def test_a_table_is_defused_but_for_its_numbers():
    frame = pd.DataFrame({"=name": ["=1+1", "cat", None], "score": [-0.5, 1.0, float("nan")]})
    text = csv_text(frame)
    assert text == "'=name,score\n'=1+1,-0.5\ncat,1.0\n,\n"
    assert pd.read_csv(io.StringIO(text)).loc[0, "score"] == -0.5
