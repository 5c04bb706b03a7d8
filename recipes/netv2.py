"""CIFAR10Netv2: four plain blocks, Adam and a plateau; published 85.21 % in 42 epochs.

Source   a published CIFAR-10 project under the 200,000-parameter rules, reproduced from its own description
Expect   85 % on test in the 43rd epoch, selected on test as its author did; published in the 42nd
Run      python -m cifar_fast recipe netv2

Stated: architecture, Adam (L2 1e-4), batch 128, cross-entropy, plateau (factor 0.5, patience 2, min 1e-6), stop at
85 %, all augmentations but what follows. Not stated and chosen here: the seed (42); p of shift/scale/rotate (0.5, the
library's default); border pixels are mirrored, as Albumentations 1.x did by default; the last smaller batch is kept,
as torch's DataLoader does. Its text says about 195,000 parameters and a receptive field of 49; it has 181,942 and 81.

In one run in bf16, train ended 3 points below the published curve (78.8 against 81.5 %) and test stayed 0.3 to 2.8
points below in epochs 35 to 42, after it had been level or above up to the 28th; the plateau first halved the rate for
the 43rd (theirs for the 28th), which had 85.09 % and ended the run. The hole may be why, as in `strided`: the other
reading was not tried here.
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
