"""A MobileNet-like network with a dilated last block, cosine over 80 epochs; published 87.25 %.

Source   a published CIFAR-10 project under the same rules; stated and assumed values: recipes/README.md
Expect   87.4 % on test after the last epoch
Run      python -m cifar_fast recipe mobile
"""

from cifar_fast.all import *

recipe = Recipe(
    arch="cifar_mobile",
    epochs=80,
    validate_on="test",
    bs=128,
    drop_last=False,
    stats=PUBLISHED_STATS,
    augment=(
        A.HorizontalFlip(p=0.5),
        A.Affine(translate_percent=(-0.0625, 0.0625), scale=(0.9, 1.1), rotate=(-7, 7),
                 keep_ratio=True, border_mode=4, p=0.5),
        A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(16, 16), hole_width_range=(16, 16), fill=0, p=0.5),
    ),
    lr=0.01,
    opt=partial(sgd, momentum=0.9, weight_decay=5e-4),
    fit=partial(constant),
    sched=partial(cosine, eta_min=1e-6),
    loss=partial(cross_entropy),
    compile="auto",
)
