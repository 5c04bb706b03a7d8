"""Benchmarks: this project against the bare tools, both measured in the same run. Only their names; imports nothing."""

BENCHMARKS = {
    "data": "images/s of the training DataLoader, against the bare Albumentations loop",
    "step": "seconds a step in Learner.fit, against a bare PyTorch loop",
    "train": "images/s of recipe final as it runs, against the fastest of eight ways to run it",
    "predict": "images/s of predict, against the bare model and against decoding alone",
    "gradients": "batches/s of depthwise convolutions' gradients in bf16, against PyTorch's own",
    "bulk": "images/s and memory of predict --out, against decoding alone in as many processes",
    "startup": "seconds of a command in a fresh process, against python and torch alone",
    "procs": "images/s of recipe final in two processes, against one process with all threads",
    "serve": "response time with 32 clients at once, against predicting their images without a server",
    "scale": "cost of an epoch and memory as images, resolution and parameters grow",
}
DEFAULT = ("data", "step", "train", "predict", "startup")
