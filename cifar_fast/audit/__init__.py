"""Whether a model keeps a budget: audited on the operations it executes, not on what its modules are called.

`profile` runs a copy of the model once and records its operations, functional calls included. The receptive field r
follows from the rule r ← r + (k−1)·d·j, j ← j·s along the executed graph (kernel k, dilation d, stride s, total stride
j). `receptive_field_probe` measures it by gradient. `audit` compares both with a `Budget`.

Not recognised: a maximum between shifted slices, as a max pool; a convolution written as unfold and matmul, as
depthwise or dilated; a matrix product that averages all positions, as a global pool; patches that become tokens without
being a feature map (N, C, H, W) in between, as windows of the rule; a branch that is multiplied by zero, as unused;
fixed tensors that are only added to the image or multiplied element by element, and kernels that the model makes by a
formula or from a seed each time it runs, as parameters.
"""

from cifar_fast.audit.graph import Profile, profile
from cifar_fast.audit.op_recorder import Layer
from cifar_fast.audit.params import count_params, weights
from cifar_fast.audit.probe import receptive_field_probe
from cifar_fast.audit.tables import LEGEND, audit_table, layer_rows, layer_table
from cifar_fast.audit.verdicts import RULES, STANDARD, Audit, AuditError, Budget, Verdict, amount, audit, bound

__all__ = [
    "weights", "count_params",  # what counts as a parameter
    "profile", "Layer", "Profile",  # the operations for one image, their cost, the receptive field by the rule
    "receptive_field_probe",  # the receptive field, measured
    "Budget", "STANDARD", "RULES",  # what is required
    "audit", "Audit", "Verdict", "bound", "amount", "AuditError",  # a verdict on each rule
    "audit_table", "LEGEND", "layer_table", "layer_rows",  # as text, or cell by cell
]
