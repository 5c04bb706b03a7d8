"""Several runs as one: a search over settings (Optuna), or one recipe with several seeds.

A trial is a run like any other, in its own folder; Optuna's storage says which trials there are, and workers
(processes, on one machine or several) claim them. Nothing here needs Optuna until a sweep is started.
"""
