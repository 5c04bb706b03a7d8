"""Mixed precision on CUDA, CPU and MPS; fastai's own is written for CUDA alone and does nothing elsewhere."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback, CancelStepException

from cifar_fast.training.callbacks.stateful import StatefulCallback
from cifar_fast.utils.errors import FP16_ON_CPU, SettingError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(precision: str, device: torch.device) -> str:
    "fp32, bf16 or fp16 for 'auto' on `device`, else `precision`. Raises SettingError for fp16 on a CPU."
    kind = device.type
    if precision == "auto":
        if kind == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        # On a CPU without bf16 instructions (AVX-512 BF16, AMX) bf16 is emulated and many times slower than fp32.
        return "bf16" if kind == "cpu" and cpu_has_bf16() else "fp32"
    if precision == "fp16" and kind == "cpu":
        raise SettingError(FP16_ON_CPU)
    return precision


def cpu_has_bf16() -> bool:
    "Whether this CPU has instructions for bf16, asked of oneDNN, which runs the convolutions."
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(precision: str, device: torch.device) -> torch.autocast:
    "The context in which a model of this precision ('fp32', 'bf16', 'fp16') runs forward."
    return torch.autocast(device.type, dtype=DTYPES.get(precision), enabled=precision in DTYPES)


class Autocast(StatefulCallback):
    "torch.autocast around forward pass and loss; for fp16 the loss is scaled and the gradients unscaled."

    order = 9  # fastai's GradientClip (11) must see unscaled gradients

    def __init__(self, precision: str, device: torch.device):
        self.context, self.inside = autocast(precision, device), False
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def state_dict(self):
        return self.scaler.state_dict()

    def load_state_dict(self, saved):
        if saved:  # a run in bf16 has no state, and the scaler refuses an empty one
            self.scaler.load_state_dict(saved)

    def before_batch(self):
        self.context.__enter__()
        self.inside = True

    def after_pred(self):
        self.learn.pred = self.pred.float()

    def after_loss(self):
        self.undo()

    def before_backward(self):
        self.learn.loss_grad = self.scaler.scale(self.loss_grad)

    def before_step(self):
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.opt.opt)

    def undo(self):
        "Leave autocast; also called when a run is interrupted in the middle of a batch."
        if self.inside:
            self.context.__exit__(None, None, None)
            self.inside = False

    after_cancel_batch = after_cancel_fit = undo


class ScaledStep(Callback):
    "Lets fp16's loss scaler make the step, or skip it where a gradient overflowed."

    order = 90  # after everything that looks at or clips the gradients
    run_valid = False

    def __init__(self, scaler: torch.amp.GradScaler):
        self.scaler = scaler

    def before_step(self):
        self.scaler.step(self.opt.opt)
        self.scaler.update()
        raise CancelStepException


def precision_cbs(precision: str, device: torch.device) -> list[Callback]:
    "The callbacks that make a Learner train in `precision` ('fp32', 'bf16', 'fp16'; see `choose_precision`)."
    if precision == "fp32":
        return []
    scaled = Autocast(precision, device)
    return [scaled, ScaledStep(scaled.scaler)] if precision == "fp16" else [scaled]
