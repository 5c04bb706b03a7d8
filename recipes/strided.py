"""Net: unpadded and strided convolutions, SGD and one cycle; published 87.37 % in 30 epochs.

Source   a published CIFAR-10 project under the 200,000-parameter rules, reproduced from its own description
Expect   86.7 % after the last epoch, 86.9 % at best, on its published training curve (below)
Run      python -m cifar_fast recipe strided

Stated: architecture, SGD (momentum 0.9, decay 1e-4), batch 128, torch's OneCycleLR to 0.05 over 391 steps an epoch (so
the last, smaller batch is kept), all augmentations. Not stated and chosen here: the seed (42); the order of ReLU and
BatchNorm (see the architecture); border pixels are black. Its true receptive field is 33: it reached its 44 by counting
the global pool; that rule is waived by name.

The hole is stated as 16x16, in words that fit argument names which Albumentations 2.x ignores: it then cuts one or two
holes of 10 to 20 % of the side. Both readings ran in full, in bf16, one run each; the recipe keeps the one that follows
the published curve (which of the two they ran, they do not say):

    last epoch of 30                  train    test   test at best
    published                          89.3    87.3    87.4
    1 to 2 holes of 10 to 20 %         89.4    86.7    86.9    this recipe; results.csv, commit 278a97f
    one hole of 16x16                  81.9    85.8    86.0    results.csv, commit 6f6ad8a

On train ours stays within 0.7 points of the published curve all the way; on test it ends 0.6 lower.
"""

from cifar_fast.all import *

recipe = Recipe(
    arch="cifar_strided",
    epochs=30,
    validate_on="test",
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
    fit=partial(constant),
    sched=partial(one_cycle_torch, max_lr=0.05),
    loss=partial(cross_entropy),
    channels_last=True,  # memory format only: the same arithmetic
    waive={"receptive_field": "the published net has 33; its 44 counted the global average pool"},
)
