"""Label tables: formats, columns, splits, and what is wrong in them."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cifar_fast.data import table as tables
from cifar_fast.data.errors import DataError
from cifar_fast.data.sources import load_source
from cifar_fast.data.table import scan_table
from cifar_fast.utils.csv import csv_text

FILES = [f"images/{name}{i}.png" for name in ("cat", "dog", "猫") for i in range(10)]
LABELS = [name for name in ("cat", "dog", "猫") for _ in range(10)]


@pytest.fixture
def folder(tmp_path):
    "images/ with ten images each of cat, dog and 猫."
    (tmp_path / "images").mkdir()
    for i, name in enumerate(FILES):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def write(folder, text: str, name: str = "labels.csv", encoding: str = "utf-8"):
    (folder / name).write_text(text, encoding=encoding)
    return folder / name


def rows(*lines: str, head: str = "file,label") -> str:
    return "\n".join([head, *lines]) + "\n"


def listed(tree) -> dict[str, list[str]]:
    return {split: [tree.shown(f) for f in files] for split, files in tree.splits.items()}


def plain(sep: str = ",", head: str = "file,label", extra: str = "") -> str:
    lines = (f"{file}{sep}{label}{extra}" for file, label in zip(FILES, LABELS, strict=True))
    return rows(*lines, head=head.replace(",", sep))


@pytest.mark.parametrize("name, text, encoding", [
    ("a.csv", plain(), "utf-8"), ("b.csv", plain(";"), "utf-8-sig"), ("c.tsv", plain("\t"), "utf-16"),
    ("d.csv", plain("|"), "utf-8"), ("E.CSV", plain().replace("\n", "\r\n"), "utf-8"),
    ("f.csv", plain(head="Image Path,Class Name"), "utf-8"), ("g.csv", plain(head="weird,thing"), "utf-8"),
    ("h.csv", plain().replace("images/", "images\\"), "utf-8"), ("i.csv", plain().replace(".png", ""), "utf-8"),
    ("j.csv", plain(head="id,file,target").replace("images", "1,images"), "utf-8"),
])
def test_formats_and_names_of_columns(folder, name, text, encoding):
    tree = scan_table(write(folder, text, name, encoding))
    assert tree.vocab == ("cat", "dog", "猫") and tree.problems == ()
    assert {split: len(files) for split, files in tree.splits.items()} == {"train": 24, "test": 6}


def test_paths_of_windows_are_called_that(folder):
    at = r"C:\Users\me\images\cat0.png"
    with pytest.raises(DataError, match=r"C:\\Users\\me.*path of Windows.*relative to the table"):
        scan_table(write(folder, rows(f"{at},cat", r"\\nas\x\dog1.png,dog")))
    tree = scan_table(write(folder, plain() + f"{at},cat\nimages/cat99.png,cat\n"))
    windows, gone = tree.problems
    assert "1 row with a path of Windows" in windows and at in windows
    assert "1 file not found" in gone and "cat99" in gone and at not in gone
    with pytest.raises(DataError, match=r"data=D:\\pets is a path of Windows"):
        load_source(r"D:\pets")


def test_parquet_with_lists_of_labels_is_refused(folder):
    pd.DataFrame({"file": FILES[:2], "label": [["a", "b"], ["b"]]}).to_parquet(folder / "labels.parquet")
    with pytest.raises(DataError, match="label holds ndarray values, not text.*one label each"):
        scan_table(folder / "labels.parquet")


def test_parquet_with_numbers(folder):
    frame = pd.DataFrame({"path": FILES, "y": [10, 9, None] * 10, "fold": ["train"] * 15 + ["val"] * 15})
    frame.to_parquet(folder / "labels.parquet")
    tree = scan_table(folder / "labels.parquet")
    assert tree.vocab == ("9", "10") and {split: len(files) for split, files in tree.splits.items()} == {
        "train": 10, "valid": 10}
    assert "10 rows without a label" in tree.problems[0]


def test_parquet_with_an_index_that_repeats(folder):
    "As of two tables that were put together: of the row that is left out alone goes."
    frame = pd.DataFrame({"file": FILES, "label": LABELS})
    frame.loc[3, "file"] = "images/gone.png"
    frame.set_index(pd.Index([*range(15)] * 2)).to_parquet(folder / "labels.parquet")
    tree = scan_table(folder / "labels.parquet")
    assert sum(map(len, tree.splits.values())) == len(FILES) - 1
    frame.set_index("file").to_parquet(folder / "named.parquet")  # an index with a name is a column
    assert sum(map(len, scan_table(folder / "named.parquet").splits.values())) == len(FILES) - 1


def test_labels_are_text_and_numbers_are_sorted_by_value(folder):
    text = rows(*(f"{f},{label}" for f, label in zip(FILES, ["10", "9", "NA", "None", "007", "a"] * 5, strict=True)))
    assert scan_table(write(folder, text)).vocab == ("007", "10", "9", "NA", "None", "a")
    text = rows(*(f"{f},{label}" for f, label in zip(FILES, ["10.0", "9", "2.0"] * 10, strict=True)))
    assert scan_table(write(folder, text)).vocab == ("2", "9", "10")


def test_columns_that_are_given(folder):
    text = rows(*(f"{f},{i % 2},{label},{i % 5}" for i, (f, label) in enumerate(zip(FILES, LABELS, strict=True))),
                head="image_path,label,class,fold")
    table = write(folder, text)
    tree = scan_table(table, {"file": "image_path", "label": "class", "split": "fold"})
    assert tree.vocab == ("cat", "dog", "猫") and len(tree.splits["test"]) == 6 and not tree.seeded
    notes = " ".join(tree.notes)
    assert "fold 0 of 5 is the test set" in notes and "not used: the column label" in notes
    assert scan_table(table).vocab == ("0", "1")
    assert scan_table(table, {"split": "none"}).seeded
    for columns, words in (({"label": "clas"}, "clas.*did you mean class.*image_path"),
                           ({"labels": "class"}, "labels")):
        with pytest.raises(DataError, match=words):
            scan_table(table, columns)


@pytest.mark.parametrize("head, values, expected", [
    ("split", ("Train", "TEST", "val"), {"train": 10, "test": 10, "valid": 10}),
    ("subset", ("training", "validation", "validation"), {"train": 10, "valid": 20}),
    ("is_valid", ("False", "True", "false"), {"train": 20, "valid": 10}),
    ("is_test", ("0", "1", "0"), {"train": 20, "test": 10}),
    ("split", ("train", "test", "unused"), {"train": 10, "test": 10}),
])
def test_splits(folder, head, values, expected):
    text = rows(*(f"{f},{i // 3 % 2},{values[i % 3]}" for i, f in enumerate(FILES)), head=f"file,label,{head}")
    tree = scan_table(write(folder, text))
    assert {split: len(files) for split, files in tree.splits.items()} == expected
    assert ("unused" in " ".join(tree.problems)) == ("unused" in values)


@pytest.mark.parametrize("head, values, expected", [
    ("is_train,is_test,is_valid", ("1,0,0", "0,1,0", "0,0,1"), {"train": 10, "test": 10, "valid": 10}),
    ("is_test,is_valid", ("False,False", "True,False", "False,True"), {"train": 10, "test": 10, "valid": 10}),
    ("is_train,is_test", ("1,0", "0,1", "0,0"), {"train": 10, "test": 10}),  # the last third is of no split
    ("is_test,is_valid", ("0,0", "1,1", "0,1"), {"train": 10, "valid": 10}),  # the second third is of two
    ("fold,is_test", ("0,0", "1,1", "2,0"), {"train": 20, "test": 10}),
    ("is_test,fold", ("0,0", "1,1", "0,2"), {"train": 20, "test": 10}),
    ("fold", ("1", "2", "test"), {"train": 20, "test": 10}),
    ("fold,is_test", ("0,0", "1,0", "2,0"), {"train": 20, "test": 10}),  # a column that is all no says nothing
    ("fold,is_valid", ("0,1", "1,1", "2,1"), {"train": 20, "test": 10}),
    ("fold,is_train", ("0,1", "1,1", "2,0"), {"train": 20, "test": 10}),
    ("is_valid,is_test", (",", "1,", ",1"), {"train": 10, "test": 10, "valid": 10}),  # nothing written means no
    ("is_train,is_valid", ("1,0", "0,1", "0,0"), {"train": 10, "test": 10, "valid": 10}),
    ("split,is_test", ("train,1", "test,0", "train,1"), {"train": 20, "test": 10}),  # what names the split itself
])
def test_splits_of_several_columns(folder, head, values, expected):
    text = rows(*(f"{f},{i // 3 % 2},{values[i % 3]}" for i, f in enumerate(FILES)), head=f"file,label,{head}")
    tree = scan_table(write(folder, text))
    assert {split: len(files) for split, files in tree.splits.items()} == expected
    assert ("10 rows of no known split" in " ".join(tree.problems)) == (sum(expected.values()) < 30)
    if head.startswith("is_train,is_test,"):
        assert "columns of labels.csv: split from is_train and is_test and is_valid" in tree.notes


def test_a_column_of_yes_and_no_that_holds_something_else(folder):
    text = rows(*(f"{f},{i // 3 % 2},{i % 2},{'maybe' if i == 7 else i % 3}" for i, f in enumerate(FILES)),
                head="file,label,is_test,is_valid")
    with pytest.raises(DataError, match="its column is_valid holds 2, which is neither yes nor no.*data.split="):
        scan_table(write(folder, text))
    assert len(scan_table(write(folder, text), {"split": "is_test"}).splits["test"]) == 15


def test_labels_with_a_fraction_of_zero_beside_one_that_is_left_out(folder):
    "Whole numbers lose their fraction where all labels are such; `unsure` is a label, but none of its files is there."
    text = rows(*(f"{f},{1 + i % 2}.0" for i, f in enumerate(FILES)), "images/gone.png,unsure")
    assert scan_table(write(folder, text)).vocab == ("1.0", "2.0")
    text = rows(*(f"{f},{9 + i % 2}.0" for i, f in enumerate(FILES)), "images/gone.png,unsure")
    assert scan_table(write(folder, text)).vocab == ("9.0", "10.0")


def test_what_is_wrong_is_counted_and_named(folder):
    text = rows("images/gone.png,cat,train", "images/cat1.png,,train", "images/cat2.png,cat,train",
                "images/cat2.png,dog,train", "images/cat3.png,cat,train", "images/cat3.png,cat,test",
                "images/./cat4.png,cat,train", "images/cat4.png,cat,train", ",dog,train", "images/cat5.png,bird,test",
                "images/dog0.png,dog,train", "images/dog1.png,dog,test", head="file,label,split")
    table = write(folder, text)
    source = load_source(table, cache=folder / "cache")
    assert source.vocab == ("cat", "dog") and len(source.train) == 2 and len(source.test) == 2
    assert source.train.files() == ("images/./cat4.png", "images/dog0.png")
    said = " | ".join(source.problems)
    for words in ("1 file not found (images/gone.png)", "1 row without a label (images/cat1.png)",
                  "1 row without a file", "2 rows of files with two labels (images/cat2.png: cat and dog)", "(bird)",
                  "1 row of files that are in another split too (images/cat3.png)"):
        assert words in said
    assert "1 row listed twice" in " ".join(source.notes) and set(source.problems) <= set(source.notes)
    with pytest.raises(DataError, match="gone.png.*on_error=skip"):
        load_source(table, cache=folder / "cache", on_error="refuse")


def test_equal_content_in_two_splits_is_named_and_refused(folder):
    (folder / "images" / "copy.png").write_bytes((folder / FILES[0]).read_bytes())
    text = rows(*(f"{f},{label},train" for f, label in zip(FILES, LABELS, strict=True)), "images/copy.png,cat,test",
                head="file,label,split")
    table = write(folder, text)
    for _ in range(2):  # decoded, and from the cache
        assert "1 image of test is also trained on: equal pixels (images/copy.png)" in load_source(
            table, cache=folder / "cache").problems
        with pytest.raises(DataError, match="copy.png"):
            load_source(table, cache=folder / "cache", on_error="refuse")


@pytest.mark.parametrize("text, words", [
    ("", "cannot be read as a table"), ("file,label\n", "no rows"),
    (plain(head="a,b,c", extra=",x"), "label.*a, b and c"),
    ("images/cat0.png,cat\nimages/dog0.png,dog\n", "no heading.*file,label"),
    (plain().replace("images/", ""), "none of the 30 files.*cat0.png.*images/cat0.png"),
    (rows("images/cat0.png,cat", "images/cat1.png,cat"), "one class only, 'cat'"),
    (plain(head="file,label,split", extra=",x"), "split, x.*data.split=none"),
    (rows("images/cat0.png,cat", "images/dog0.png,dog"), "none to test on"),
    (rows("images/cat0.png,cat,test", head="file,label,split"), "no image to train on"),
    (rows("images/cat0.png,", "images/dog0.png,"), "no row to use: .*2 rows without a label"),
    (rows(*(f"images/cat{i}.png,cat,train" for i in range(3))), "beyond its heading of 2 columns, train for example"),
    (rows(",cat", ",dog"), "no row to use: .*2 rows without a file"),
    ("file,label\na.png,cat,1,2\nb.png,x\nc,d,e,f,g,h\n", "cannot be read as a table"),
])
def test_tables_that_are_refused(folder, text, words):
    with pytest.raises(DataError, match=words):
        scan_table(write(folder, text))


def test_a_comma_at_the_end_of_every_row_shifts_nothing(folder):
    text = "".join(f"{line}\n" if i == 0 else f"{line},\n" for i, line in enumerate(plain().splitlines()))
    assert listed(scan_table(write(folder, text))) == listed(scan_table(write(folder, plain(), "plain.csv")))


def test_quotes_after_a_space_and_long_texts_are_no_values_beyond_the_heading(folder):
    text = rows('images/cat0.png, cat, "small, black"', f"images/dog0.png, dog, {'x' * 200_000}",
                head="file, label, note").replace("cat0.png", "cat1.png")
    more = "".join(f"images/{name}{i}.png, {name}, \n" for name in ("cat", "dog") for i in range(2, 8))
    assert sum(map(len, listed(scan_table(write(folder, text + more))).values())) == 14


def test_what_is_not_text_is_refused(folder):
    with pytest.raises(DataError, match="not UTF-8"):
        scan_table(write(folder, plain().replace("猫", "é"), encoding="latin-1"))
    pd.DataFrame({"image": [b"\0"] * 3, "label": [1, 2, 3]}).to_parquet(folder / "x.parquet")
    with pytest.raises(DataError, match="image.*bytes"):
        scan_table(folder / "x.parquet")


def test_a_table_that_the_package_wrote_is_read_as_it_was_meant(folder):
    names = ["@home.png", "-1.png", "=x.png", "'quoted'.png"]
    for name in names:
        (folder / name).write_bytes((folder / FILES[0]).read_bytes())
    frame = pd.DataFrame({"file": names, "label": ["+a", "b", "+a", "b"]})
    tree = scan_table(write(folder, csv_text(frame)))
    assert sorted(sum(listed(tree).values(), [])) == sorted(names) and tree.vocab == ("+a", "b")


def test_a_table_is_opened_by_name_and_a_change_is_noticed(folder):
    table = write(folder, plain())
    first = load_source(table, cache=folder / "cache")
    assert first.name == "labels" and str(table) in first.origin and first.train.files()[0] in FILES
    assert (len(first.train), len(first.test)) == (24, 6)
    assert load_source(table, cache=folder / "cache", seed=1).fingerprint != first.fingerprint
    write(folder, plain().replace("cat0.png,cat", "cat0.png,dog"))
    assert load_source(table, cache=folder / "cache").fingerprint != first.fingerprint
    with pytest.raises(DataError, match="x.txt is a file, but no label table"):
        load_source(write(folder, "x", "x.txt"))


def test_many_rows_are_listed_without_a_loop_over_pandas_objects(folder, monkeypatch):
    monkeypatch.setattr(tables, "stat_state", lambda path: "1 2 3")  # no such files are needed
    text = rows(*(f"images/{i}.jpg,c{i % 30},{'test' if i % 7 == 0 else 'train'}" for i in range(100_000)),
                head="path,class,split")
    tree = scan_table(write(folder, text))
    assert {split: len(files) for split, files in tree.splits.items()} == {"train": 85_714, "test": 14_286}
    first = tree.splits["train"][0]
    assert first == ("images/1.jpg", str(folder / "images" / "1.jpg"), tree.vocab.index("c1"), "1 2 3")
