"""The names that a recipe or a notebook needs: `from cifar_fast.all import *`."""

from functools import partial

import cifar_fast.utils.seeds  # noqa: F401  (first: it keeps albumentations from asking for updates at its import)

# isort: split
import albumentations as A
import timm

import cifar_fast.models  # noqa: F401  (registers the architectures with timm)
from cifar_fast.audit import Budget, audit, audit_table, layer_table
from cifar_fast.data.block import data_block, make_dls, test_dl
from cifar_fast.data.images import read_image
from cifar_fast.data.loaders import SeededDL
from cifar_fast.data.sources import load_source
from cifar_fast.data.transforms import AlbumentationsTransform
from cifar_fast.export.load import load_model
from cifar_fast.export.predictor import load_export, rebuild_pickle
from cifar_fast.models.parts import stem_stages_head
from cifar_fast.recipe import PUBLISHED_STATS, Recipe, list_recipes, load_recipe, override
from cifar_fast.reporting import plots
from cifar_fast.runs.run import train
from cifar_fast.training.callbacks.ema import ema
from cifar_fast.training.fits import constant, fine_tune, flat_cos, one_cycle
from cifar_fast.training.learner import cifar_learner
from cifar_fast.training.losses import cross_entropy, focal
from cifar_fast.training.lr_finder import find as lr_find
from cifar_fast.training.mix import mixing
from cifar_fast.training.optimizers import adam, adamw, muon, sgd
from cifar_fast.training.prepare import prepare
from cifar_fast.training.resize import progressive
from cifar_fast.training.schedules import cosine, cyclic, one_cycle_torch, plateau, step, warmup_cosine

__all__ = [
    "A", "AlbumentationsTransform", "Budget", "PUBLISHED_STATS", "Recipe", "SeededDL", "adam",
    "adamw", "audit", "audit_table", "cifar_learner", "cosine", "cross_entropy", "cyclic", "data_block", "ema",
    "constant", "flat_cos", "focal", "layer_table", "list_recipes", "load_export", "load_model", "load_recipe",
    "load_source", "lr_find", "make_dls", "mixing", "muon", "one_cycle", "one_cycle_torch", "override", "partial",
    "plateau", "plots", "prepare", "progressive", "read_image", "rebuild_pickle", "sgd", "step", "test_dl",
    "timm", "train", "warmup_cosine", "fine_tune", "stem_stages_head",
]
