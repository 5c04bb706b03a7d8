"""The columns of a label table: which of them names the file, which the label, which the split."""

from __future__ import annotations

import codecs
import csv
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_fast.data.errors import DataError
from cifar_fast.data.images import EXTENSIONS
from cifar_fast.data.layout import names
from cifar_fast.utils.csv import original_cell
from cifar_fast.utils.text import nearest, printable

if TYPE_CHECKING:
    import pandas as pd

USUAL = {  # by these, in this order; case, spaces, _ and - do not count
    "file": "file filename filepath path image imagepath imagefile imagefilename imagename img imgpath imgname imgfile "
            "imagefilepath fname fullpath relativepath relpath filenames files images photo picture imageid imgid "
            "idcode id",
    "label": "label class classname classlabel labelname category categoryname target y labels classes species breed "
             "diagnosis tag groundtruth truth annotation kind type classid labelid categoryid",
    "split": "split fold set subset partition phase usage splitname datasplit isvalid isval isvalidation istest "
             "istrain istraining",
}
FLAGS = {"isvalid": ("valid", "train"), "isval": ("valid", "train"), "isvalidation": ("valid", "train"),
         "istest": ("test", "train"), "istrain": ("train", "test"), "istraining": ("train", "test")}
"Columns of yes and no → the splits that these mean, where there is no second one."
TRUE, FALSE = {"1", "true", "t", "yes", "y"}, {"0", "false", "f", "no", "n"}
DELIMITERS = ",;\t|"
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_columns(path: Path, given: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """The columns `file`, `label` and, where there is one, `split` of a table, as text; their own names; the others.

    `given` names columns that are called otherwise; {"split": "none"} ignores the split. Raises DataError.
    """
    if unknown := set(given) - set(USUAL):
        raise DataError(f"data.{sorted(unknown)[0]}= is unknown{nearest(sorted(unknown)[0], USUAL)}; a table takes "
                        "data.file=, data.label= and data.split=, each with the name of a column")
    frame = read_table(path)
    chosen = choose(path, frame, dict(given))
    flags = {} if "split" in given else flags_of(path, frame, chosen)
    if flags:
        frame = frame.assign(**{(joined := " and ".join(flags)): combined(flags)})
        chosen["split"] = joined
    used = {*chosen.values(), *flags}
    unused = [name for name in frame.columns if name not in used and not name.startswith("Unnamed: ")]
    return frame[list(chosen.values())].apply(as_text).set_axis(list(chosen), axis=1), chosen, unused


def read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)  # with the index that was saved, which may hold a number twice
            return frame.reset_index(drop=all(name is None for name in frame.index.names))
        delimiter, encoding = dialect(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # of values beyond the heading, see `beyond`
            # Every cell as it stands: "NA" and "None" may be classes, and 007 is not 7. Without an index: a delimiter
            # at the end of each row does not make the first column one.
            frame = pd.read_csv(path, sep=delimiter, encoding=encoding, dtype=str, na_filter=False,
                                skipinitialspace=True, index_col=False)
        if value := beyond(path, delimiter, encoding, len(frame.columns)):
            raise DataError(f"{printable(path)} has a value beyond its heading of {len(frame.columns)} columns, "
                            f"{printable(value)} for example; give that column a name in the heading")
        return frame
    except UnicodeError:
        raise DataError(f"{printable(path)} is not UTF-8; save it as CSV in UTF-8") from None
    except (OSError, ValueError, csv.Error) as error:  # pandas' and Arrow's own are ValueErrors
        reason = getattr(error, "strerror", None) or printable(str(error).strip().splitlines()[-1])
        raise DataError(f"{printable(path)} cannot be read as a table ({reason}); it should be a CSV or parquet file "
                        "with the columns file and label") from error


def beyond(path: Path, delimiter: str, encoding: str, columns: int) -> str:
    "The first value of a row in a column that the heading does not have; empty where there is none."
    csv.field_size_limit(2**31 - 1)  # a table may hold longer texts than csv's 131,072 characters
    with open(path, encoding=encoding, newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        return next((cell for row in rows for cell in row[columns:] if cell.strip()), "")


def dialect(path: Path) -> tuple[str, str]:
    "(delimiter, encoding): the delimiter that the heading has most of."
    with open(path, "rb") as file:
        start = file.read(1 << 16)
    encoding = next((name for mark, name in MARKS if start.startswith(mark)), "utf-8")
    lines = start.decode(encoding, "ignore").splitlines()
    heading = next((line for line in lines if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", heading)
    return max(DELIMITERS, key=bare.count), encoding  # the comma, where there is none


def choose(path: Path, frame: pd.DataFrame, given: dict[str, str]) -> dict[str, str]:
    "Role → column. Raises DataError, which lists the columns, where a column is not found."
    there = [str(name) for name in frame.columns]
    if any(is_image(name) for name in there):
        raise DataError(f"{printable(path)} has no heading: its first line is {printable(','.join(there))}; write "
                        "file,label above it")
    frame.columns = there
    ignored = given.get("split", "").lower() == "none"
    if ignored:
        del given["split"]
    chosen = {role: given_column(path, there, role, name) for role, name in given.items()}
    for role in USUAL:
        usual = None if role in chosen or (role == "split" and ignored) else usual_column(role, there, chosen)
        if role == "file" and role not in chosen and not (usual and looks_like_files(frame[usual])):
            # A column of any name that holds the names of images is meant rather than an `id`.
            usual = next((name for name in there if looks_like_files(frame[name])), usual)
        if usual:
            chosen[role] = usual
    left = [name for name in there if name not in chosen.values() and not name.startswith("Unnamed: ")]
    if "label" not in chosen and len(left) == 1:
        chosen["label"] = left[0]
    for role in ("file", "label"):
        if role not in chosen:
            raise DataError(f"{printable(path)} has no column called like a {role}; name it: data.{role}=… "
                            f"(its columns are {names(there, most=20) if there else 'none'})")
    return {role: chosen[role] for role in USUAL if role in chosen}


def flags_of(path: Path, frame: pd.DataFrame, chosen: Mapping[str, str]) -> dict[str, pd.Series]:
    """Several columns of yes and no that name splits (is_train, is_test), as text; or one beside the folds.

    None where one column says all. Raises DataError where one of several holds something else.
    """
    split = key_of(chosen.get("split", ""))
    texts = {name: as_text(frame[name]).str.lower() for name in frame.columns
             if key_of(name) in FLAGS and name not in (chosen["file"], chosen["label"])}
    if "fold" in split:  # a column of all yes or all no says something else, or nothing
        return {name: text for name, text in texts.items()
                if set(text) <= {*TRUE, *FALSE, ""} and set(text) & TRUE and set(text) - TRUE}
    if split not in FLAGS or len(texts) < 2:
        return {}
    for name, text in texts.items():
        if odd := sorted(set(text) - {*TRUE, *FALSE, ""}):
            raise DataError(f"{printable(path)}: its column {printable(name)} holds {printable(odd[0])}, which is "
                            f"neither yes nor no; correct it, or name the column of the split: data.split=…")
    return texts


def combined(flags: Mapping[str, pd.Series]) -> pd.Series:
    "The split of each row by columns of yes and no; no split's name where several fit, or none and two are left."
    import pandas as pd

    meant = {name: FLAGS[key_of(name)][0] for name in flags}
    left = [split for split in ("train", "test") if split not in meant.values()]
    rest = left[0] if left else "none of them"
    rows = zip(*(text.isin(TRUE) for text in flags.values()), strict=True)
    found = [" as well as ".join(sorted({meant[name] for name, yes in zip(flags, row, strict=True) if yes}))
             for row in rows]
    return pd.Series([split or rest for split in found], index=next(iter(flags.values())).index)


def key_of(name: str) -> str:
    "A column's name as USUAL and FLAGS have it."
    return re.sub(r"[\W_]+", "", name.casefold())


def usual_column(role: str, there: list[str], chosen: dict[str, str]) -> str | None:
    "The column with the first of the role's usual names."
    by_key = {key_of(name): name for name in reversed(there) if name not in chosen.values()}
    return next((by_key[key] for key in USUAL[role].split() if key in by_key), None)


def given_column(path: Path, there: list[str], role: str, name: str) -> str:
    if name in there:
        return name
    raise DataError(f"data.{role}={printable(name)}: {printable(path)} has no such column{nearest(name, there)}; its "
                    f"columns are {names(there, most=20)}")


def looks_like_files(values: pd.Series) -> bool:
    "Whether most of the first values end like images."
    first = [value for value in values.iloc[:100] if isinstance(value, str)]
    return sum(map(is_image, first)) * 2 > len(first)


def is_image(name: str) -> bool:
    return os.path.splitext(name.strip())[1].lower() in EXTENSIONS


def as_text(values: pd.Series) -> pd.Series:
    "Stripped text; missing values are empty, whole numbers have no fraction, defused cells are as they were."
    import numpy as np
    import pandas as pd

    if len(values) and isinstance(values.iloc[0], dict | bytes | list | np.ndarray):
        raise DataError(f"the column {printable(values.name)} holds {type(values.iloc[0]).__name__} values, not text; "
                        "a label table names files, one label each")
    missing = values.isna()
    if pd.api.types.is_float_dtype(values) and (values[~missing] % 1 == 0).all():
        values = values.astype("Int64")
    text = values.astype(object).where(~missing, "").astype(str).str.strip()
    quoted = text.str.startswith("'")
    return text.where(~quoted, text.map(original_cell)) if quoted.any() else text
