"""The classification datasets of torchvision by name: what they are, and their official splits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cifar_fast.data.registry import Request, register_source
from cifar_fast.data.traffic_signs import TRAFFIC_SIGNS

DIGITS = tuple("0123456789")
TRAIN_TEST = {"train": {"train": True}, "test": {"train": False}}
SPLITS = {"train": {"split": "train"}, "test": {"split": "test"}}
THREE = {"train": {"split": "train"}, "valid": {"split": "val"}, "test": {"split": "test"}}
ALL = {"train": {}}  # no official split
MIRRORED = "mirror images may be of other classes here (left and right, b and d): recipe digits trains without flips"


@dataclass(frozen=True)
class TorchvisionSet:
    "One dataset of torchvision."

    cls: str  # its class in torchvision.datasets
    size: int  # side of the decoded images unless asked otherwise, pixels
    classes: int
    about: str  # images of each split, and the download
    splits: dict[str, dict]  # train, valid, test → the arguments of the class; of train alone a fifth becomes test
    vocab: tuple[str, ...] = ()  # where the class of torchvision names none, or clumsily
    first: int = 0  # label of the first class
    transposed: bool = False  # rows and columns of the images are swapped in the files
    note: str = ""  # printed by a run


def emnist(split: str, classes: int, about: str, vocab: tuple[str, ...] = (), first: int = 0) -> TorchvisionSet:
    splits = {name: {"split": split, "train": name == "train"} for name in ("train", "test")}
    return TorchvisionSet("EMNIST", 32, classes, f"{about}; 562 MB", splits, vocab, first, transposed=True,
                          note=MIRRORED if classes > 10 else "")


TORCHVISION = {
    "cifar100": TorchvisionSet("CIFAR100", 32, 100, "50,000 + 10,000 photographs of 32×32; 169 MB", TRAIN_TEST),
    "mnist": TorchvisionSet("MNIST", 32, 10, "60,000 + 10,000 handwritten digits of 28×28; 12 MB", TRAIN_TEST, DIGITS),
    "fashion_mnist": TorchvisionSet(
        "FashionMNIST", 32, 10, "60,000 + 10,000 pieces of clothing of 28×28; 31 MB, none with "
        "Debian's package dataset-fashion-mnist",
        TRAIN_TEST),
    "kmnist": TorchvisionSet(
        "KMNIST", 32, 10, "60,000 + 10,000 cursive Japanese characters of 28×28; 21 MB", TRAIN_TEST),
    "qmnist": TorchvisionSet(
        "QMNIST", 32, 10, "60,000 + 60,000 handwritten digits of 28×28, MNIST's with all its test images; 21 MB",
        {"train": {"what": "train"}, "test": {"what": "test"}}, DIGITS),
    "emnist": emnist("balanced", 47, "112,800 + 18,800 handwritten letters and digits of 28×28"),
    "emnist_letters": emnist(
        "letters", 26, "124,800 + 20,800 handwritten letters of 28×28",
        tuple("abcdefghijklmnopqrstuvwxyz"), first=1),
    "emnist_digits": emnist("digits", 10, "240,000 + 40,000 handwritten digits of 28×28"),
    "usps": TorchvisionSet("USPS", 32, 10, "7,291 + 2,007 handwritten digits of 16×16; 9 MB", TRAIN_TEST, DIGITS),
    "semeion": TorchvisionSet("SEMEION", 32, 10, "1,593 handwritten digits of 16×16, no split; 3 MB", ALL, DIGITS),
    "svhn": TorchvisionSet("SVHN", 32, 10, "73,257 + 26,032 photographs of house numbers; 247 MB", SPLITS, DIGITS),
    "stl10": TorchvisionSet(
        "STL10", 64, 10, "5,000 + 8,000 photographs of 96×96; 2.6 GB with the unlabelled ones", SPLITS),
    "eurosat": TorchvisionSet("EuroSAT", 64, 10, "27,000 satellite images of 64×64, no split; 94 MB", ALL),
    "gtsrb": TorchvisionSet(
        "GTSRB", 32, 43, "26,640 + 12,630 German traffic signs; 277 MB", SPLITS, TRAFFIC_SIGNS, note=MIRRORED),
    "flowers102": TorchvisionSet(
        "Flowers102", 64, 102, "1,020 + 1,020 + 6,149 photographs of flowers; 345 MB", THREE),
    "oxford_pets": TorchvisionSet(
        "OxfordIIITPet", 64, 37, "3,680 + 3,669 photographs of cats and dogs; 811 MB",
        {"train": {"split": "trainval"}, "test": {"split": "test"}}),
    "food101": TorchvisionSet("Food101", 64, 101, "75,750 + 25,250 photographs of dishes; 5.0 GB", SPLITS),
    "imagenette": TorchvisionSet(
        "Imagenette", 64, 10, "9,469 + 3,925 photographs, 10 easy classes of ImageNet; 342 MB",
        {"train": {"split": "train", "size": "320px"}, "test": {"split": "val", "size": "320px"}},
        note="imagenette has no test set; its val/, on which its published accuracies are measured, is used as one"),
    "dtd": TorchvisionSet("DTD", 64, 47, "1,880 + 1,880 + 1,880 photographs of textures; 625 MB", THREE),
    "fgvc_aircraft": TorchvisionSet(
        "FGVCAircraft", 64, 100, "3,334 + 3,333 + 3,333 photographs of aircraft; 2.8 GB", THREE),
    "country211": TorchvisionSet(
        "Country211", 64, 211, "31,650 + 10,550 + 21,100 photographs by country; 11 GB",
        THREE | {"valid": {"split": "valid"}}),
    "caltech101": TorchvisionSet("Caltech101", 64, 101, "8,677 photographs, no split; 137 MB", ALL),
    "caltech256": TorchvisionSet("Caltech256", 64, 257, "30,607 photographs, no split; 1.2 GB", ALL),
}


ARRAYS = ("CIFAR100", "MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST", "USPS", "SEMEION", "SVHN", "STL10")
"Classes of torchvision that read all images of a split from one file."


def fill_from_torchvision(name: str, spec: TorchvisionSet, folder: Path, request: Request) -> dict:
    from cifar_fast.data.torchvision_fill import fill_splits

    return fill_splits(name, spec, folder, request)


for name, spec in TORCHVISION.items():
    register_source(name, f"torchvision.datasets.{spec.cls}", size=spec.size, classes=spec.classes, about=spec.about,
                    folder=f"torchvision/{spec.cls}", valid="valid" in spec.splits, files=spec.cls not in ARRAYS)(
                        partial(fill_from_torchvision, name, spec))
