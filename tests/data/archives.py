"""Small archives in the true format of each of torchvision's datasets: a file's name → its bytes.

The colour of an image says its label and its split, so that a test sees whether labels, splits and channels fit.
"""

import bz2
import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image
from scipy.io import savemat

LABELS = {"train": [2, 0, 1, 2, 0, 1], "valid": [1, 0, 2], "test": [0, 1, 2, 1]}
UNSPLIT = [0] * 5 + [1] * 5 + [2] * 5  # of a dataset without a test set
NUMBER = {"train": 0, "valid": 1, "test": 2}
WNIDS = ("n01440764", "n02102040", "n02979186")


def colour(label: int, split: str) -> tuple[int, int, int]:
    return 60 * label, 60 * NUMBER[split], 200


def grey(label: int, split: str) -> int:
    return 60 * label + 20 * NUMBER[split]


def picture(label: int, split: str, form: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour(label, split)).save(file, form, **({"quality": 95} if form == "JPEG" else {}))
    return file.getvalue()


def tar(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def idx(array: np.ndarray) -> bytes:
    "The format of MNIST: a magic number with type and dimensions, their sizes, and the values, all big-endian."
    code, kind = (8, ">u1") if array.dtype == np.uint8 else (12, ">i4")
    return struct.pack(f">I{array.ndim}I", code * 256 + array.ndim, *array.shape) + array.astype(kind).tobytes()


def greys(split: str, side: int) -> np.ndarray:
    return np.stack([np.full((side, side), grey(label, split), np.uint8) for label in LABELS[split]])


def colours(split: str, side: int) -> np.ndarray:  # (N, side, side, 3)
    return np.stack([np.full((side, side, 3), colour(label, split), np.uint8) for label in LABELS[split]])


def labels(split: str) -> np.ndarray:
    return np.array(LABELS[split], dtype=np.uint8)


def of_cifar100() -> dict[str, bytes]:
    members = {"cifar-100-python/meta": pickle.dumps({"fine_label_names": ["apple", "aquarium_fish", "baby"]})}
    for split in ("train", "test"):
        planes = colours(split, 32).transpose(0, 3, 1, 2).reshape(-1, 3072)
        members[f"cifar-100-python/{split}"] = pickle.dumps({"data": planes, "fine_labels": LABELS[split]})
    return {"cifar-100-python.tar.gz": tar(members)}


def of_mnist() -> dict[str, bytes]:
    files = {}
    for prefix, split in (("train", "train"), ("t10k", "test")):
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(idx(greys(split, 28)))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels(split)))
    return files


def of_qmnist() -> dict[str, bytes]:
    files = {}
    for split in ("train", "test"):
        extended = np.zeros((len(LABELS[split]), 8), np.int32)  # label, writer and more
        extended[:, 0], extended[:, 2] = LABELS[split], 77
        files[f"qmnist-{split}-images-idx3-ubyte.gz"] = gzip.compress(idx(greys(split, 28)))
        files[f"qmnist-{split}-labels-idx2-int.gz"] = gzip.compress(idx(extended))
    return files


def of_emnist(kind: str, first: int = 0) -> dict[str, bytes]:
    members = {}
    for split in ("train", "test"):
        images = greys(split, 28)
        images[:, :, :4] = 255  # the left columns of the file are the upper rows of the image
        members[f"gzip/emnist-{kind}-{split}-images-idx3-ubyte.gz"] = gzip.compress(idx(images))
        members[f"gzip/emnist-{kind}-{split}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels(split) + first))
    return {"gzip.zip": zipped(members)}


def of_usps() -> dict[str, bytes]:
    files = {}
    for name, split in (("usps.bz2", "train"), ("usps.t.bz2", "test")):
        lines = []
        for label in LABELS[split]:
            value = (grey(label, split) + 0.5) / 127.5 - 1  # -1 to 1
            lines.append(" ".join([str(label + 1), *(f"{i}:{value:.6f}" for i in range(1, 257))]))
        files[name] = bz2.compress("\n".join(lines).encode())
    return files


def of_semeion() -> dict[str, bytes]:
    rows = [np.r_[np.full(256, label > 0), np.arange(10) == label].astype(int) for label in UNSPLIT]
    return {"semeion.data": "\n".join(" ".join(map(str, row)) for row in rows).encode()}


def of_svhn() -> dict[str, bytes]:
    files = {}
    for split in ("train", "test"):
        file = io.BytesIO()
        tens = np.array([[label or 10] for label in LABELS[split]], dtype=np.uint8)  # the digit 0 is called 10
        savemat(file, {"X": colours(split, 32).transpose(1, 2, 3, 0), "y": tens})
        files[f"{split}_32x32.mat"] = file.getvalue()
    return files


def of_stl10() -> dict[str, bytes]:
    members = {"stl10_binary/class_names.txt": b"airplane\nbird\ncar\n", "stl10_binary/unlabeled_X.bin": b""}
    for split in ("train", "test"):
        members[f"stl10_binary/{split}_X.bin"] = colours(split, 96).transpose(0, 3, 2, 1).tobytes()
        members[f"stl10_binary/{split}_y.bin"] = (labels(split) + 1).tobytes()
    return {"stl10_binary.tar.gz": tar(members)}


def of_eurosat() -> dict[str, bytes]:
    names = ("AnnualCrop", "Forest", "River")
    return {"EuroSAT.zip": zipped({f"2750/{names[label]}/{names[label]}_{i}.jpg": picture(label, "train")
                                   for i, label in enumerate(UNSPLIT)})}


def of_gtsrb() -> dict[str, bytes]:
    train = {f"GTSRB/Training/{label:05d}/{i:05d}_00000.ppm": picture(label, "train", "PPM")
             for i, label in enumerate(LABELS["train"])}
    test = {f"GTSRB/Final_Test/Images/{i:05d}.ppm": picture(label, "test", "PPM")
            for i, label in enumerate(LABELS["test"])}
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId",
             *(f"{i:05d}.ppm;40;30;1;1;39;29;{label}" for i, label in enumerate(LABELS["test"]))]
    return {"GTSRB-Training_fixed.zip": zipped(train), "GTSRB_Final_Test_Images.zip": zipped(test),
            "GTSRB_Final_Test_GT.zip": zipped({"GT-final_test.csv": "\n".join(lines).encode()})}


def of_flowers102() -> dict[str, bytes]:
    numbered = [(split, label) for split in LABELS for label in LABELS[split]]
    members = {f"jpg/image_{i:05d}.jpg": picture(label, split) for i, (split, label) in enumerate(numbered, 1)}
    ids = {key: np.array([[i for i, (split, _) in enumerate(numbered, 1) if split == of]])
           for key, of in (("trnid", "train"), ("valid", "valid"), ("tstid", "test"))}
    mats = {"imagelabels.mat": {"labels": np.array([[label + 1 for _, label in numbered]])}, "setid.mat": ids}
    files = {"102flowers.tgz": tar(members)}
    for name, values in mats.items():
        savemat(file := io.BytesIO(), values)
        files[name] = file.getvalue()
    return files


def of_oxford_pets() -> dict[str, bytes]:
    names, images, lists = ("Abyssinian", "american_bulldog", "Bengal"), {}, {}
    for part, split in (("trainval", "train"), ("test", "test")):
        lines = []
        for i, label in enumerate(LABELS[split]):
            images[f"images/{names[label]}_{part}{i}.jpg"] = picture(label, split)
            lines.append(f"{names[label]}_{part}{i} {label + 1} 1 1")
        lists[f"annotations/{part}.txt"] = "\n".join(lines).encode()
    return {"images.tar.gz": tar(images), "annotations.tar.gz": tar(lists)}


def of_food101() -> dict[str, bytes]:
    names, members = ("apple_pie", "baklava", "beignets"), {}
    for split in ("train", "test"):
        paths = {name: [] for name in names}
        for i, label in enumerate(LABELS[split]):
            paths[names[label]].append(f"{names[label]}/{split}{i}")
            members[f"food-101/images/{names[label]}/{split}{i}.jpg"] = picture(label, split)
        members[f"food-101/meta/{split}.json"] = json.dumps(paths).encode()
    return {"food-101.tar.gz": tar(members)}


def of_imagenette() -> dict[str, bytes]:
    return {"imagenette2-320.tgz": tar({
        f"imagenette2-320/{part}/{WNIDS[label]}/{i}.JPEG": picture(label, split)
        for part, split in (("train", "train"), ("val", "test")) for i, label in enumerate(LABELS[split])})}


def of_dtd() -> dict[str, bytes]:
    names, members = ("banded", "blotchy", "braided"), {}
    for part, split in (("train", "train"), ("val", "valid"), ("test", "test")):
        paths = [f"{names[label]}/{names[label]}_{part}{i}.jpg" for i, label in enumerate(LABELS[split])]
        members |= {f"dtd/images/{path}": picture(label, split)
                    for path, label in zip(paths, LABELS[split], strict=True)}
        members[f"dtd/labels/{part}1.txt"] = "\n".join(paths).encode()
    return {"dtd-r1.0.1.tar.gz": tar(members)}


def of_fgvc_aircraft() -> dict[str, bytes]:
    names = ("707-320", "727-200", "A300 B4")
    members = {"fgvc-aircraft-2013b/data/variants.txt": "\n".join(names).encode()}
    for part, split in (("train", "train"), ("val", "valid"), ("test", "test")):
        numbers = [f"{NUMBER[split]}{i:06d}" for i in range(len(LABELS[split]))]
        lines = [f"{number} {names[label]}" for number, label in zip(numbers, LABELS[split], strict=True)]
        members[f"fgvc-aircraft-2013b/data/images_variant_{part}.txt"] = "\n".join(lines).encode()
        members |= {f"fgvc-aircraft-2013b/data/images/{number}.jpg": picture(label, split)
                    for number, label in zip(numbers, LABELS[split], strict=True)}
    return {"fgvc-aircraft-2013b.tar.gz": tar(members)}


def of_country211() -> dict[str, bytes]:
    names = ("AD", "AE", "AF")
    return {"country211.tgz": tar({f"country211/{split}/{names[label]}/{i}.jpg": picture(label, split)
                                   for split in LABELS for i, label in enumerate(LABELS[split])})}


def of_caltech101() -> dict[str, bytes]:
    names = ("Faces", "airplanes", "ant")
    members = {f"101_ObjectCategories/{names[label]}/image_{i % 5 + 1:04d}.jpg": picture(label, "train")
               for i, label in enumerate(UNSPLIT)}
    members["101_ObjectCategories/BACKGROUND_Google/image_0001.jpg"] = picture(3, "train")
    return {"caltech-101.zip": zipped({"caltech-101/101_ObjectCategories.tar.gz": tar(members)})}


def of_caltech256() -> dict[str, bytes]:
    names = ("ak47", "american-flag", "backpack")
    return {"256_ObjectCategories.tar": tar({
        f"256_ObjectCategories/{label + 1:03d}.{names[label]}/{label + 1:03d}_{i % 5 + 1:04d}.jpg":
        picture(label, "train") for i, label in enumerate(UNSPLIT)}, "w")}


ARCHIVES = {
    "cifar100": of_cifar100, "mnist": of_mnist, "fashion_mnist": of_mnist, "kmnist": of_mnist, "qmnist": of_qmnist,
    "emnist": lambda: of_emnist("balanced"), "emnist_letters": lambda: of_emnist("letters", 1),
    "emnist_digits": lambda: of_emnist("digits"), "usps": of_usps, "semeion": of_semeion, "svhn": of_svhn,
    "stl10": of_stl10, "eurosat": of_eurosat, "gtsrb": of_gtsrb, "flowers102": of_flowers102,
    "oxford_pets": of_oxford_pets, "food101": of_food101, "imagenette": of_imagenette, "dtd": of_dtd,
    "fgvc_aircraft": of_fgvc_aircraft, "country211": of_country211, "caltech101": of_caltech101,
    "caltech256": of_caltech256,
}
