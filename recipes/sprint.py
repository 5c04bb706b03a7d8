"""About 85 % in 45 seconds on two CPU cores: a small network, Muon and eight epochs.

Source   ours; ablations: recipes/README.md
Expect   85.0 ± 0.1 % on CIFAR-10's test set (n = 3), 44 to 47 s in two processes on two CPU cores with bf16
Run      python -m cifar_fast recipe sprint procs=auto      (two processes on a CPU)
"""

from cifar_fast.all import *

recipe = Recipe(
    arch="cifar_sprint",
    epochs=8,
    valid=0,
    bs=512,
    augment=(
        A.PadIfNeeded(min_height=36, min_width=36, border_mode=4),
        A.RandomCrop(32, 32),
        A.HorizontalFlip(p=0.5),
    ),
    lr=0.2,
    opt=partial(muon, momentum=0.8, weight_decay=0.01, steps=3, sgd_scale=2.0, sgd_decay=5e-4),
    fit=partial(one_cycle, pct_start=0.2, div=10.0, div_final=1e4, moms=(0.8, 0.8, 0.8)),
    loss=partial(cross_entropy, label_smoothing=0.1),
    resize=partial(progressive, size=24, until=0.6),
    precision="auto",
    channels_last="auto",
)
