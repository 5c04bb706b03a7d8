"""For microcontrollers: at most 96 KB of int8 weights, 40 KB of activations, 12.5 million multiply-adds.

Source   ours; ablations: recipes/README.md
Expect   90.1 ± 0.1 % on CIFAR-10's test set (n = 3), 0.1 to 0.2 points less in int8, 51 minutes on one CPU
         core with bf16; with file format and interpreter tflite-micro takes 106 KB of flash and 50 KB of RAM (x86)
Run      python -m cifar_fast recipe micro
"""

from cifar_fast.all import *

recipe = Recipe(
    arch="cifar_micro",
    epochs=60,
    valid=0,
    bs=256,
    augment=(
        A.PadIfNeeded(min_height=40, min_width=40, border_mode=4),
        A.RandomCrop(32, 32),
        A.HorizontalFlip(p=0.5),
    ),
    lr=0.05,
    opt=partial(muon, momentum=0.9, weight_decay=0.01, sgd_scale=2.0, sgd_decay=5e-4),
    fit=partial(one_cycle, pct_start=0.2, div=10.0, div_final=1e4, moms=(0.9, 0.9, 0.9)),
    loss=partial(cross_entropy, label_smoothing=0.1),
    mix=partial(mixing, mixup=0.0, cutmix=0.2, cutmix_alpha=1.0, until=0.8),
    ema=partial(ema, decay=0.999, warmup=True),
    precision="auto",
    channels_last="auto",
    budget=Budget(max_flash_kb=96, max_ram_kb=40, max_macs=12.5e6),
)
