"""CIFAR10Netv2: four plain blocks, Adam and a plateau schedule; published 85.21 % in 42 epochs.

Source   a published CIFAR-10 project under the same rules; stated and assumed values: recipes/README.md
Expect   85 % on test after 43 epochs (published: 42), which ends the run
Run      python -m cifar_fast recipe netv2 precision=bf16
"""

from cifar_fast.all import *

recipe = Recipe(
    arch="cifar_netv2",
    epochs=50,
    validate_on="test",
    keep="best",
    target=0.85,
    bs=128,
    drop_last=False,
    stats=PUBLISHED_STATS,
    augment=(
        A.HorizontalFlip(p=0.5),
        A.Affine(translate_percent=(-0.1, 0.1), scale=(0.9, 1.1), rotate=(-15, 15),
                 keep_ratio=True, border_mode=4, p=0.5),
        A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(16, 16), hole_width_range=(16, 16), fill=0, p=0.3),
    ),
    lr=1e-3,
    opt=partial(adam, betas=(0.9, 0.999), weight_decay=1e-4),
    fit=partial(constant),
    sched=partial(plateau, factor=0.5, patience=2, min_lr=1e-6),
    loss=partial(cross_entropy),
    channels_last=True,  # memory format only: the same arithmetic
)
