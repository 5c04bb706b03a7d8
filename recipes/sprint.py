"""85 % in three minutes on two CPU cores: a small net, Muon, a few epochs.

Source   ours
Expect   see README's table
Run      python -m cifar_fast recipe sprint
"""

from cifar_fast.all import *

recipe = Recipe(
    arch="cifar_sprint",
    epochs=7,
    valid=0,
    bs=256,
    augment=(
        A.PadIfNeeded(min_height=38, min_width=38, border_mode=4),
        A.RandomCrop(32, 32),
        A.HorizontalFlip(p=0.5),
    ),
    lr=0.05,
    opt=partial(muon, momentum=0.9, weight_decay=0.01, sgd_scale=2.0, sgd_decay=5e-4),
    fit=partial(one_cycle, pct_start=0.2, div=10.0, div_final=1e4, moms=(0.9, 0.9, 0.9)),
    loss=partial(cross_entropy, label_smoothing=0.1),
    resize=partial(progressive, size=24, until=0.4),
    channels_last=True,
)
