"""Our flagship: under 200,000 parameters, legal by every rule, mirrored layers, Muon, one cycle, CutMix and EMA.

Source   ours
Expect   README's table
Run      python -m cifar_fast recipe final        (epochs= is the one thing to turn)

Its net answers the same for an image and its mirror image, so plain accuracy and TTA are one figure. Where left and
right mean something (letters, arrows), take another: arch=cifar_final, with augment of your own.

What each idea gave: one run each on 45,000 training images, measured on the other 5,000 (plain, TTA), one core each;
differences below half a point may be chance. 14 epochs, averaged weights:

    net, with CutMix 0.4 and MixUp 0.1         two dense blocks, two separable: this one        91.8  91.8
    up to 90 % of the run                      three dense, two separable, widths 16, 48, 96    91.5  91.5
                                               one dense, three separable, widths 24, 64, 96    91.4  91.4
                                               one dense, three separable                       91.3  91.3
    mixing, on the first net                   none: learns 97.7 % of them                      91.3  91.3
                                               CutMix 0.7 instead: learns 93.2 %                90.6  90.6
    averaging, on the first net                none: the last weights as they are               91.8  91.8

CutMix 0.5 instead of 0.4 was chosen for a longer run, which learns more: 99.6 % of its augmented training images in
80 epochs (93.8 % on test) against 95.0 % in those 14. No split was asked at that length. 200 epochs learn 99.9 % and
have 93.9 %: who trains that long wants more mixing, or another augmentation, than this.

8 epochs with a tenth CutMix and 0.05 MixUp, up to 80 % of the run:

    net, one dense block, three separable      mirrored, SiLU                                   90.1  90.1
                                               mirrored, ReLU, 5 % faster                       89.6  89.6
                                               plain, ReLU: cifar_final, two thirds of the work 88.4  89.6

That light mixing was too light: in 28 epochs on all images the first of these learned 99.3 % of them, 91.7 % on test.

The net before it, cifar_final, of plain convolutions (22 million multiply-adds instead of 44), 5 epochs without mixing
and averaging, two cores:

    net                                        that one                                         87.7  88.4
                                               its layers mirrored, 111,110 parameters          87.7  87.7
                                               16 → 32 → 64 with a block at 32×32, 23 million   86.4  87.4
    learning rate of Muon                      0.05                                             87.7  88.4
                                               0.1                                              87.2  88.1
    mixing, for 80 % of the run                none                                             87.7  88.4
                                               a tenth MixUp, a tenth CutMix                    87.4  88.0
    early epochs at lower resolution           none                                             87.7  88.4
                                               24×24 for 40 % of 6 epochs (the same work)       87.4  87.8

The same net, 24 epochs on 22,500 training images, without averaging, one core:

    regularisation                             light mixing, learns 95.0 %                      88.6  89.8
                                               and Cutout of 10 pixels, learns 89.0 %           87.7  88.9

Other nets of plain convolutions, about 195,000 parameters, 4 epochs without mixing and averaging, one core each:

    cifar_final                                626 images/s on two cores                        86.1  86.8
    SiLU instead of ReLU                       532 images/s                                     86.2  87.1
    squeeze-and-excitation in dense blocks     3 % slower                                       85.5  86.4
    16 → 48 → 64 → 128, the last at 4×4        20 million multiply-adds                         84.7  85.4
"""

from cifar_fast.all import *

recipe = Recipe(
    arch="cifar_mirror",
    epochs=80,
    valid=0,  # trains on all 50,000 images; the last weights meet the test set once
    bs=256,
    augment=(
        A.PadIfNeeded(min_height=40, min_width=40, border_mode=4),
        A.RandomCrop(32, 32),
        A.HorizontalFlip(p=0.5),  # nothing new to this net, but to what MixUp and CutMix mix, and to another arch=
    ),
    lr=0.05,
    opt=partial(muon, momentum=0.9, weight_decay=0.01, sgd_scale=2.0, sgd_decay=5e-4),
    fit=partial(one_cycle, pct_start=0.2, div=10.0, div_final=1e4, moms=(0.9, 0.9, 0.9)),
    loss=partial(cross_entropy, label_smoothing=0.1),
    mix=partial(mixing, mixup=0.1, cutmix=0.5, mixup_alpha=0.4, cutmix_alpha=1.0, until=0.9),
    ema=partial(ema, decay=0.999, warmup=True),
    precision="auto",
    channels_last="auto",
    compile="auto",
)
