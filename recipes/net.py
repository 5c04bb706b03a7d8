"""CIFAR10Net: depthwise-separable and dilated blocks at full resolution, cyclic LR; published 87.02 % in 50 epochs.

Source   a published CIFAR-10 project under the 200,000-parameter rules, reproduced from its own description
Expect   not known: published are 85.5 % after the last epoch, 87 % in the best one (selected on test); see below
Run      python -m cifar_fast recipe net          (about 200 million multiply-adds an image: give it a GPU)

Stated: architecture, AdamW (decay 1e-4), batch 64, patience 10, the cyclic schedule (stepped once a batch, 781 batches
an epoch: that gives its 50 published rates), all augmentations but what follows. Not stated and chosen here: the seed
(42); the rate of Dropout2d (see the architecture); p of the coarse dropout (0.5, the library's default). The hole is
filled with 0: its "mean" of 0.49 on a 0..255 image.

The hole is stated as 16x16. Albumentations 2.x ignores the names that 1.x had for that size and cuts one or two holes
of 10 to 20 % of the side; its borders are black where those of 1.x are mirrored. Which of the two they ran, they do
not say. Both readings began in bf16, one run each, holes and borders changed together; the recipe keeps the one that
comes closer to the published curve. Accuracy on train and on test in %, the last line from a run stopped after three:

    epoch                                            1            2            3            4            5            6
    published                              24.9   36.7  37.1   46.6  45.2   51.4  50.9   60.1  55.2   64.4  58.2   66.7
    as 2.x reads it: this recipe           26.4   36.7  36.7   44.0  43.5   50.3  48.5   59.3  52.9   61.7  56.5   64.2
    one hole of 16x16, mirrored borders    25.1   31.3  33.9   43.4  40.1   46.8

About two points on train stay unexplained; the rate of Dropout2d may be one that nobody stated. No run went further
than the six epochs of results.csv.
"""

from cifar_fast.all import *

recipe = Recipe(
    arch="cifar_net",
    epochs=50,
    validate_on="test",
    keep="best",
    patience=10,
    bs=64,
    drop_last=True,
    stats=PUBLISHED_STATS,
    augment=(
        A.PadIfNeeded(min_height=36, min_width=36),
        A.RandomCrop(32, 32),
        A.HorizontalFlip(p=0.5),
        A.Affine(translate_percent=(-0.1, 0.1), scale=(0.9, 1.1), rotate=(-15, 15),
                 keep_ratio=True, p=0.5),
        A.RandomBrightnessContrast(brightness_limit=(-0.2, 0.2), contrast_limit=(-0.2, 0.2), p=0.5),
        A.HueSaturationValue(hue_shift_limit=(-20, 20), sat_shift_limit=(-30, 30), val_shift_limit=(-20, 20), p=0.5),
        A.CoarseDropout(num_holes_range=(1, 2), hole_height_range=(0.1, 0.2), hole_width_range=(0.1, 0.2), fill=0,
                        p=0.5),
    ),
    lr=1e-3,
    opt=partial(adamw, weight_decay=1e-4),
    fit=partial(constant),
    sched=partial(cyclic, base_lr=1e-4, max_lr=1e-2, step_size_up=4, step_size_down=4,
                  base_momentum=0.8, max_momentum=0.9),
    loss=partial(cross_entropy),
    channels_last=True,  # memory format only: the same arithmetic
)
