"""Net: unpadded and strided convolutions, SGD and one cycle; published 87.37 % in 30 epochs.

Source   a published CIFAR-10 project under the 200,000-parameter rules, reproduced from its own description
Expect   README's table; with one hole of 16x16 instead 85.84 % after the last epoch (below)
Run      python -m cifar_fast recipe strided

Stated: architecture, SGD (momentum 0.9, decay 1e-4), batch 128, torch's OneCycleLR to 0.05 over 391 steps an epoch (so
the last, smaller batch is kept), all augmentations. Not stated and chosen here: the seed (42); the order of ReLU and
BatchNorm (see the architecture); border pixels are black. Its true receptive field is 33: it reached its 44 by counting
the global pool; that rule is waived by name.

The hole is stated as 16x16, in names that Albumentations 2.x ignores: it then cuts one or two of 10 to 20 % of the
side, which is what this recipe does. With exactly one of 16x16, black, a run in bf16 learned 81.9 % of its training
pictures and had 85.84 % on test after 30 epochs, 85.96 % at best (results.csv, commit 6f6ad8a); published are 89.3 % of
train and 87.37 %.
"""

from cifar_fast.all import *

recipe = Recipe(
    arch="cifar_strided",
    epochs=30,
    protocol="published",
    bs=128,
    drop_last=False,
    stats=PUBLISHED_STATS,
    augment=(
        A.HorizontalFlip(p=0.5),
        A.Affine(translate_percent=(-0.0625, 0.0625), scale=(0.9, 1.1), rotate=(-7, 7),
                 keep_ratio=True, p=0.5),
        A.CoarseDropout(num_holes_range=(1, 2), hole_height_range=(0.1, 0.2), hole_width_range=(0.1, 0.2), fill=0,
                        p=0.5),
    ),
    lr=0.01,
    opt=partial(sgd, momentum=0.9, weight_decay=1e-4),
    fit=partial(flat),
    sched=partial(one_cycle_torch, max_lr=0.05),
    loss=partial(cross_entropy),
    channels_last=True,  # memory format only: the same arithmetic
    waive={"receptive_field": "the published net has 33; its 44 counted the global average pool"},
)
