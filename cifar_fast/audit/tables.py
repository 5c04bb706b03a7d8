"""Audits as text."""

import textwrap
from collections.abc import Sequence

from cifar_fast.audit.op_recorder import Layer
from cifar_fast.audit.verdicts import Audit


def _aligned(rows: list[list[str]], left: int = 1) -> list[str]:
    "Columns as wide as their widest cell; the first `left` are flush left."
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    align = [str.ljust] * left + [str.rjust] * (len(widths) - left)
    return ["  ".join(f(c, w) for f, c, w in zip(align, row, widths, strict=True)).rstrip() for row in rows]


def audit_table(audits: Sequence[Audit]) -> str:
    "One line a network, then one for each broken rule, disagreement and note."
    rows = [["architecture", "params", "MMACs", "weights", "activ.", "RF", "probe", "down", "max", "d-sep",
             "dil", "GAP", "broken"]]
    remarks = []
    for a in audits:
        p, broken = a.profile, a.failures()
        probe = "-" if a.receptive_field_probe is None else str(a.receptive_field_probe)
        rows.append([
            a.name, f"{p.params:,}", f"{p.macs / 1e6:.1f}", _size(p.param_bytes), _size(p.activation_bytes),
            str(p.receptive_field), probe, str(sum(p.downsampling.values())), str(p.max_pools),
            str(p.depthwise_separable), str(p.dilated), "yes" if p.global_average_pool else "no",
            str(len(broken) or "-"),
        ])
        remarks += [f"{a.name} breaks {v}" for v in broken]
        if not a.rf_agrees:
            remarks.append(f"{a.name}: receptive field {p.receptive_field} by the rule, {probe} measured")
        remarks += [f"{a.name}: {note}" for note in p.notes]
    remarks = [textwrap.fill(remark, 100, subsequent_indent="  ") for remark in remarks]
    return "\n".join([*_aligned(rows), *([""] if remarks else []), *remarks])


def layer_rows(audit: Audit) -> list[list[str]]:
    """A heading, then convolutions, products, norms, pools and joins in the order they ran, then the sums.

    Activations and views are left out.
    """
    shown = ("conv", "pool", "linear", "norm", "add", "cat", "mul")
    rows = [["layer", "operation", "output", "params", "MMACs", "RF", "jump"]]
    for layer in audit.profile.layers:
        if not (layer.params or layer.kind.endswith(shown)):
            continue
        rows.append([
            layer.path, _operation(layer), "×".join(map(str, layer.shape)), f"{layer.params:,}",
            f"{layer.macs / 1e6:.2f}", str(layer.receptive_field), str(layer.jump),
        ])
    used = sum(layer.params for layer in audit.profile.layers)
    rows.append(["total", "", "", f"{used:,}", f"{audit.profile.macs / 1e6:.2f}", "", ""])
    return rows


def layer_table(audit: Audit) -> str:
    "The rows as text."
    lines = _aligned(layer_rows(audit), left=3)
    used = sum(layer.params for layer in audit.profile.layers)
    if used != audit.profile.params:
        lines.append(f"{audit.profile.params - used:,} more parameters are in the network but not used by it")
    return "\n".join(lines)


def _operation(layer: Layer) -> str:
    "E.g. `conv 3×3 s2 d2`."
    words = [layer.kind]
    if layer.kernel:
        words.append("×".join(map(str, layer.kernel)))
        steps = (("s", layer.stride), ("d", layer.dilation))
        words += [f"{letter}{max(v)}" for letter, v in steps if max(v) > 1]
    return " ".join(words)


def _size(count: int) -> str:
    return f"{count / 2**20:.2f}M" if count >= 2**20 else f"{count / 2**10:.0f}K"
