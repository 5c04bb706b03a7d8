"""How tests disturb a run (that of `kills`) and let it go on."""

from kills import RUN

from cifar_fast.cli.main import main

STEPS = 8  # an epoch of RUN


def resume(exports, *more):
    return main([*RUN, f"exports={exports}", "--resume", *more])


def at(monkeypatch, step, call):
    "Call something while the given step is being made."
    from cifar_fast.training.callbacks.ema import EMA

    after_step = EMA.after_step

    def watched(self):
        after_step(self)
        if self.updates == step:
            call()
    monkeypatch.setattr(EMA, "after_step", watched)


class Broken(BaseException):
    "What breaks a run off, as nothing in it expects."
