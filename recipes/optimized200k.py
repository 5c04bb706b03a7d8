"""OptimizedCIFAR10Net200K: residual depthwise-separable blocks, MixUp, CutMix and RICAP; published 87.42 %.

Source   a published CIFAR-10 project under the same rules; stated and assumed values: recipes/README.md
Expect   87.4 % on test with epochs=55, in 2.3 hours on one CPU core; all 200 were not run here
Run      python -m cifar_fast recipe optimized200k epochs=55
"""

from cifar_fast.all import *

recipe = Recipe(
    arch="cifar_optimized200k",
    epochs=200,
    validate_on="test",
    keep="best",
    patience=20,
    bs=128,
    drop_last=False,
    stats=PUBLISHED_STATS,
    augment=(
        A.HorizontalFlip(p=0.5),
        A.Affine(translate_percent=(-0.1, 0.1), scale=(0.9, 1.1), rotate=(-15, 15),
                 keep_ratio=True, border_mode=4, p=0.5),
        A.RandomBrightnessContrast(brightness_limit=(-0.2, 0.2), contrast_limit=(-0.2, 0.2), p=0.5),
        A.HueSaturationValue(hue_shift_limit=(-20, 20), sat_shift_limit=(-30, 30), val_shift_limit=(-20, 20), p=0.5),
        A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(16, 16), hole_width_range=(16, 16), fill=0, p=0.3),
    ),
    lr=0.05,
    opt=partial(sgd, momentum=0.9, weight_decay=1e-4),
    fit=partial(constant),
    sched=partial(warmup_cosine, warmup=5),
    loss=partial(cross_entropy, label_smoothing=0.1),
    mix=partial(mixing, mixup=0.3, cutmix=0.3, ricap=0.2, mixup_alpha=0.2, cutmix_alpha=1.0, ricap_beta=0.3),
    ema=partial(ema, decay=0.999),
    clip=1.0,
    compile="auto",
    waive={"dilation": "the published net has no dilated convolution"},
)
