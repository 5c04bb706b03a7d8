"""Mixed precision on CUDA, CPU and MPS; fastai's own is written for CUDA alone and does nothing elsewhere."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback, CancelStepException


def choose_precision(precision: str, device: torch.device) -> str:
    "fp32, bf16 or fp16 for 'auto' on `device`, else `precision`. Raises ValueError for fp16 on a CPU."
    kind = device.type
    if precision == "auto":
        if kind == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        # On a CPU without bf16 instructions (AVX-512 BF16, AMX) bf16 is emulated and many times slower than fp32.
        return "bf16" if kind == "cpu" and cpu_has_bf16() else "fp32"
    if precision == "fp16" and kind == "cpu":
        raise ValueError("precision=fp16 does not train on a CPU (no loss scaling there); use bf16 or fp32")
    return precision


def cpu_has_bf16() -> bool:
    "Whether this CPU has instructions for bf16, asked of oneDNN, which runs the convolutions."
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PlainBatch(Callback):
    "Hands the model a plain tensor: a subclass sends every operation of the net through Python once more."

    order = 40  # after the mixing

    def __init__(self, channels_last: bool = False):  # NHWC in memory: what CPU and tensor-core convolutions want
        self.channels_last = channels_last

    def before_fit(self):
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)

    def before_batch(self):
        x = self.x.as_subclass(torch.Tensor)
        self.learn.xb = (x.contiguous(memory_format=torch.channels_last) if self.channels_last else x,)


class Autocast(Callback):
    "torch.autocast around forward pass and loss; for fp16 the loss is scaled and the gradients unscaled."

    order = 9  # fastai's GradientClip (11) must see unscaled gradients

    def __init__(self, dtype: torch.dtype):
        self.dtype, self.inside = dtype, False

    def before_fit(self):
        kind = next(self.model.parameters()).device.type
        self.context = torch.autocast(kind, dtype=self.dtype)
        self.scaler = torch.amp.GradScaler(kind, enabled=self.dtype == torch.float16)

    def saved(self) -> dict:
        return self.scaler.state_dict()

    def restore(self, saved: dict) -> None:
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
    "Lets fp16's loss scaler make the step, or leave it out where a gradient overflowed."

    order = 90  # after everything that looks at or clips the gradients
    run_valid = False

    def before_step(self):
        self.autocast.scaler.step(self.opt.opt)
        self.autocast.scaler.update()
        raise CancelStepException


def precision_cbs(precision: str, channels_last: bool) -> list[Callback]:
    "The callbacks that make a Learner train in `precision` ('fp32', 'bf16', 'fp16'; see `choose_precision`)."
    cbs = [PlainBatch(channels_last)]
    if precision != "fp32":
        cbs.append(Autocast(torch.bfloat16 if precision == "bf16" else torch.float16))
    if precision == "fp16":
        cbs.append(ScaledStep())
    return cbs
