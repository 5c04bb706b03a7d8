"""The rules that the networks obey, audited on what a network executes, not on what its modules are called.

`profile` runs a copy of the network once and watches the operations, functional calls included; the receptive
field follows the rule r ← r + (k−1)·d·j, j ← j·s through the executed graph. `receptive_field_probe` measures
the same on the network itself, by gradient. `audit` compares both with a `Budget`.

What cannot be seen: a maximum taken between shifted slices counts as no max pool, and a convolution written
as unfold and matmul counts as neither depthwise nor dilated (the two receptive fields then disagree).
"""

from cifar_fast.audit.graph import Profile, profile
from cifar_fast.audit.op_recorder import Layer
from cifar_fast.audit.params import count_params, weights
from cifar_fast.audit.probe import receptive_field_probe
from cifar_fast.audit.tables import audit_table, layer_rows, layer_table
from cifar_fast.audit.verdicts import RULES, STANDARD, Audit, Budget, Verdict, audit, bound

__all__ = [
    "weights", "count_params",  # what counts as a parameter
    "profile", "Layer", "Profile",  # what one image executes, and the receptive field by the rule
    "receptive_field_probe",  # the receptive field, measured
    "Budget", "STANDARD", "RULES", "Verdict", "bound", "Audit", "audit",  # what is asked, and whether it is kept
    "audit_table", "layer_table", "layer_rows",  # all of it as text, or cell by cell
]
