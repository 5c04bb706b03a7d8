"""Audits as text."""

import textwrap
from collections.abc import Sequence

from cifar_fast.audit.op_recorder import Layer
from cifar_fast.audit.verdicts import Audit
from cifar_fast.utils.tables import aligned


def audit_table(audits: Sequence[Audit]) -> str:
    """One line a model, then one for each broken rule, disagreement between rule and probe, and note.

    Flash and RAM are those of int8.
    """
    rows = ["model params MMACs flash RAM RF probe down max d-sep dil GAP broken".split()]
    remarks = []
    for a in audits:
        p, broken = a.profile, a.failures()
        probe = "-" if a.receptive_field_probe is None else f"{'≥' * a.probe_cut_off}{a.receptive_field_probe}"
        rows.append([
            a.name, f"{p.params:,}", f"{p.macs / 1e6:.1f}", _size(p.flash_bytes), _size(p.ram_bytes),
            str(p.receptive_field), probe, str(sum(p.downsampling.values())), str(p.max_pools),
            str(p.depthwise_separable), str(p.dilated), "yes" if p.global_average_pool else "no",
            str(len(broken) or "-"),
        ])
        remarks += [f"{a.name} breaks {v}" for v in broken]
        if not a.rf_agrees:
            remarks.append(f"{a.name}: receptive field {p.receptive_field} by the rule, {probe} measured")
        remarks += [f"{a.name}: {note}" for note in p.notes]
    remarks = [textwrap.fill(remark, 100, subsequent_indent="  ") for remark in remarks]
    return "\n".join([*aligned(rows), *([""] if remarks else []), *remarks])


LEGEND = ("MMACs: million multiply-adds an image; flash, RAM: in int8; RF, probe: receptive field in pixels, "
          "calculated and measured; down: downsampling operations; max: max pools; d-sep, dil: depthwise-separable and "
          "dilated convolutions; GAP: whether there is a global average pool; broken: rules")
"What the columns of `audit_table` are."


def layer_rows(audit: Audit) -> list[list[str]]:
    """A heading, then convolutions, matrix products, norms, pools and joins in the order they ran, then the sums.

    Activations and views are not listed.
    """
    shown = ("conv", "pool", "linear", "norm", "add", "cat", "mul")
    rows = [["layer", "operation", "output", "params", "MMACs", "RF", "total stride"]]
    for layer in audit.profile.layers:
        if not (layer.params or layer.kind.endswith(shown)):
            continue
        rows.append([
            layer.path, _operation(layer), "×".join(map(str, layer.shape)), f"{layer.params:,}",
            f"{layer.macs / 1e6:.2f}", str(layer.receptive_field), str(layer.total_stride),
        ])
    used = sum(layer.params for layer in audit.profile.layers)
    rows.append(["total", "", "", f"{used:,}", f"{audit.profile.macs / 1e6:.2f}", "", ""])
    return rows


def layer_table(audit: Audit) -> str:
    "`layer_rows` as text."
    lines = aligned(layer_rows(audit), left=3)
    used = sum(layer.params for layer in audit.profile.layers)
    if used != audit.profile.params:
        lines.append(f"{audit.profile.params - used:,} more parameters belong to the model, but nothing uses them")
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
