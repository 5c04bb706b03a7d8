"""`data=cifar10`, from its official archive."""

from __future__ import annotations

from pathlib import Path

from cifar_fast.data.registry import Request, register_source

# Address and md5 are those of torchvision.datasets.CIFAR10, whose own download has no timeout, does not resume,
# writes to stdout and falls back to http.
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@register_source("cifar10", f"{URL} (md5 {MD5})", size=32, classes=10, version=MD5[:16], folder=ARCHIVE,
                 about="50,000 + 10,000 photographs of 32×32; 171 MB")
def fill_from_archive(folder: Path, request: Request) -> dict:
    from cifar_fast.data.arrays import write_split
    from cifar_fast.data.download import official_archive, read_archive

    splits = read_archive(official_archive(request.shelf))
    for split, (images, labels) in splits.items():
        write_split(folder, split, zip(map(request.fit, images), labels.tolist(), strict=True), request.size)
    return {"vocab": CLASSES, "splits": list(splits)}
