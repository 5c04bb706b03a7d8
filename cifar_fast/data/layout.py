"""How an image folder is laid out: which of its folders are splits, which are classes, and what is neither."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cifar_fast.data.errors import DataError
from cifar_fast.data.images import EXTENSIONS
from cifar_fast.utils.text import printable

ROLES = {"train": "train training trn", "valid": "valid val validation validate dev development eval evaluation",
         "test": "test testing tst"}
SPLITS = {word: role for role, words in ROLES.items() for word in words.split()}
ENDINGS = re.compile(r"(set|split|data|dataset|images|imgs|img|photos|pictures|folder)$")
TABLES = (".csv", ".tsv", ".parquet")
# What archives, viewers and file servers leave behind, in any case.
SYSTEM = {"__macosx", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "zbthumbnail.info",
          "icon\r", "$recycle.bin", "recycler", "system volume information", "lost+found", "network trash folder",
          "temporary items", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__pycache__"}
NEEDED = "two or more class folders are needed, <class>/<images>, alone or in train/ and test/"
MANY = 3  # names that a sentence lists
DEEP = 8  # folders with nothing but a folder in them that are opened; links may lead in circles


class Part(NamedTuple):
    "A split: a folder, and which of its folders are the classes."

    folder: Path
    classes: list[str]  # as the file system writes them


@dataclass
class Layout:
    parts: dict[str, Part]  # some of train, test, valid, in this order; or "all" for class folders alone
    notes: list[str] = field(default_factory=list)
    passed: Counter = field(default_factory=Counter)  # hidden and system files and folders, by name


@dataclass
class Folder:
    "What lies directly in a folder."

    path: Path
    folders: list[str]
    images: list[os.DirEntry]
    tables: list[str]
    others: int  # files that are named like neither


def split_role(name: str) -> str | None:
    "The split that a folder or a value of a table names: `Validation` → valid, `01_Train-set` → train, `cat` → None."
    word = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold()).strip("0123456789")
    return SPLITS.get(word) or SPLITS.get(ENDINGS.sub("", word))


def split_roles(folders: Iterable[str]) -> dict[str, str]:
    "Folder → split, of those that name one; `seg_train` does where it has a `seg_test` beside it."
    roles, series = {}, {}
    for name in folders:
        if role := split_role(name):
            roles[name] = role
        words = [word for word in re.split(r"[\W_]+", name) if word]
        for at in {0, len(words) - 1} if len(words) > 1 else ():
            if role := split_role(words[at]):
                series.setdefault((at, *words[:at], *words[at + 1:]), {})[name] = role
    for named in series.values():
        if "train" in named.values() and len(set(named.values())) > 1:
            roles |= named
    return roles


def class_name(name: str) -> str:
    "A folder's name as the vocab has it: file systems write an é as one character or as two."
    return unicodedata.normalize("NFC", printable(name))


def look(path: Path, passed: Counter | None = None) -> Folder:
    "List a folder; what the system left there is passed over, and counted in `passed`."
    here = Folder(Path(path), [], [], [], 0)
    for entry in list_folder(path):
        name, ending = entry.name, os.path.splitext(entry.name)[1].lower()
        if name.startswith(".") or name.lower() in SYSTEM:
            if passed is not None:
                passed[name] += 1
        elif is_folder(entry):
            here.folders.append(name)
        elif ending in EXTENSIONS:
            here.images.append(entry)
        elif ending in TABLES:
            here.tables.append(name)
            here.others += 1
        else:
            here.others += 1
    here.folders.sort(key=class_name)  # the same on every file system
    return here


def find_layout(root: Path, to_train: bool = True) -> Layout:
    """Which folders of `root` are splits and which are classes. Raises DataError where that is not clear.

    A folder that is called like a split and holds folders is one; with images directly inside it is a class called so.
    Without `to_train` a split to train on may be missing.
    """
    layout = Layout({})
    top = look(root, layout.passed)
    inner = {name: look(root / name) for name in top.folders}
    named = split_roles(top.folders)
    splits = {name: role for name, role in named.items() if inner[name].folders or not inner[name].images}
    flat, others = [name for name in named if name not in splits], [name for name in top.folders if name not in named]
    empty = splits and "train" not in splits.values() and not any(inner[name].folders for name in splits)
    if empty and sum(has_images(inner[name]) for name in others) > 1:
        layout.notes += [f"not used: the folder {printable(name)}/, which holds no image" for name in splits]
        top.folders, splits = [name for name in top.folders if name not in splits], {}
    if not splits:
        if flat and (len(flat) > 1 or not others):
            raise DataError(f"{printable(root)} has no class folders: images lie directly in {names(flat)}, named like "
                            f"{'splits' if len(flat) > 1 else 'a split'}; sort them into {flat[0]}/<class>/…, or "
                            f"list them with their labels in a table: data=labels.csv{table_hint(top)}")
        layout.parts["all"] = Part(root, top.folders)
    else:
        layout.parts = {role: split_part(inner[name], role) for name, role in one_each(root, splits).items()}
        unused = [*flat, *others]
        if "train" not in layout.parts and others and is_train(layout, others):
            layout.parts = {"train": Part(root, others), **layout.parts}
            unused = flat
        elif list(layout.parts) == ["train"] and len(with_images := [n for n in others if has_images(inner[n])]) > 1:
            raise DataError(f"{printable(root)}: is {next(iter(splits))}/ the training split, or a class beside "
                            f"{names(with_images)}? Move the images of a class out of their subfolders, or move the "
                            "folders that are not used elsewhere")
        for name in filter(unused.count, top.folders):
            why = f"holds {count(len(inner[name].images), 'image')} but no class folders" if inner[name].images else \
                "is called neither train, valid nor test: rename it to use it"
            layout.notes.append(f"not used: the folder {printable(name)}/, which {why}")
    layout.parts = {role: layout.parts[role] for role in ("train", "test", "valid", "all") if role in layout.parts}
    if to_train and not layout.parts.keys() & {"train", "all"}:
        raise DataError(f"{printable(root)} has {names(list(splits))} but no folder to train on; add train/<class>/…, "
                        "or measure a trained model on it: python -m cifar_fast evaluate")
    check_parts(layout, top, to_train)
    return layout


def split_part(folder: Folder, role: str) -> Part:
    "The classes of a split, which archives repeat at times: train/train/<class>."
    while len(folder.folders) == 1 and not folder.images and (
            folder.folders[0] == folder.path.name or split_role(folder.folders[0]) == role):
        inner = look(folder.path / folder.folders[0])
        if not inner.folders:
            break
        folder = inner
    return Part(folder.path, folder.folders)


def one_each(root: Path, splits: dict[str, str]) -> dict[str, str]:
    "The same, where no two folders are the same split. Raises DataError."
    for role in ROLES:
        same = [name for name, its in splits.items() if its == role]
        if len(same) > 1:
            raise DataError(f"{printable(root)}: {names(same)} are both names of the {role} split; put them together, "
                            "or rename one")
    return splits


def is_train(layout: Layout, others: list[str]) -> bool:
    "Whether the folders beside test/ are the classes to train on: all classes of the splits are among them."
    held = {class_name(name) for part in layout.parts.values() for name in part.classes}
    return bool(held) and held <= set(map(class_name, others))


def check_parts(layout: Layout, top: Folder, to_train: bool) -> None:
    for role, part in layout.parts.items():
        here = top if part.folder == top.path else look(part.folder, layout.passed)
        if here.images:
            layout.notes.append(f"not used: {count(len(here.images), 'image')} beside the class folders of "
                                f"{printable(part.folder)}, in no class")
        require_own_folders(part)
        check_classes(part, here, 2 if to_train and role in ("train", "all") else 1)


def require_own_folders(part: Part) -> None:
    "Raise DataError where class folders hold the same folders: then those may be the classes, and these the splits."
    seen: dict[str, tuple[str, set]] = {}
    for name in part.classes:
        here, depth = look(part.folder / name), 0
        while len(here.folders) == 1 and not here.images and (depth := depth + 1) < DEEP:
            here = look(here.path / here.folders[0])
        below = set(map(class_name, here.folders))
        for shared in below:
            before, theirs = seen.setdefault(shared, (name, below))
            if before != name and len(both := below & theirs) > 1:
                inside = sorted(both)
                turned = all(map(split_role, inside))
                way = ("Put the splits outside: train/<class>/… and test/<class>/…" if turned else
                       "If they are splits, name them train/ and test/; if they are classes, put their images directly "
                       "inside, or list the images with their labels in a table: data=labels.csv")
                raise DataError(f"{printable(part.folder)}: the folders {class_name(before)} and {class_name(name)} "
                                f"hold the same folders, {names(inside)}: which are the classes? {way}")


def check_classes(part: Part, here: Folder, least: int) -> None:
    "Raise DataError where there are fewer than `least` classes, or two that are shown alike."
    shown, where = [class_name(name) for name in part.classes], printable(part.folder)
    if not shown:
        raise DataError(f"{where} has no class folders; {NEEDED}{table_hint(here)}")
    if alike := [name for name, times in Counter(shown).items() if times > 1]:
        raise DataError(f"{where} has two class folders that are both shown as {alike[0]!r}; rename one")
    if len(shown) < least:
        inner = len(look(part.folder / part.classes[0]).folders) > 1
        meant = table_hint(here) or (f"; did you mean data={where}/{shown[0]}?" if inner else "")
        raise DataError(f"{where} has one class only, {shown[0]!r}; {NEEDED}{meant}")


def table_hint(top: Folder) -> str:
    likely = sorted(top.tables, key=lambda name: (Path(name).stem.lower() != "labels", name))
    return f"; did you mean the table data={printable(top.path)}/{printable(likely[0])}?" if likely else ""


def has_images(folder: Folder) -> bool:
    "Whether there is an image at any depth. Links to folders are not followed, so loops end."
    if folder.images:
        return True
    below = [folder.path / name for name in folder.folders]
    return any(has_images(look(path)) for path in below if not path.is_symlink())


def similar(name: str, known: Iterable[str]) -> str | None:
    "The known name that differs from `name` in case, width or separators alone."
    return next((other for other in known if bare(other) == bare(name)), None)


def bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold()) or name


def alike(vocab: Iterable[str]) -> list[str]:
    "The sentence on classes that may be one, if there are any."
    groups: dict[str, list[str]] = {}
    for name in vocab:
        groups.setdefault(bare(name), []).append(name)
    twice = [" and ".join(map(repr, group)) for group in groups.values() if len(group) > 1]
    return [f"classes that differ in case, width or separators alone: {names(twice)}; if they are one, give them one "
            f"name"] if twice else []


def passed_over(passed: Counter) -> list[str]:
    "The sentence that counts hidden and system files, if there are any."
    what = count(passed.total(), "hidden or system file or folder", "hidden or system files and folders")
    return [f"passed over: {what} ({names(list(passed))})"] if passed else []


def count(n: int, one: str, more: str = "") -> str:
    return f"{n:,} {one if n == 1 else more or one + 's'}"


def names(values: list[str], most: int = MANY) -> str:
    "`a, b and c`; of more than `most` the first ones, and how many more."
    shown, more = [printable(value) for value in values[:most]], len(values) - most
    last = f"{more:,} more" if more > 0 else shown.pop()
    return f"{', '.join(shown)} and {last}" if shown else last


def list_folder(folder) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        text = f"{printable(folder)} cannot be listed: {error.strerror}; check its permissions"
        raise DataError(text) from error


def is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
