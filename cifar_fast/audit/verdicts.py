"""The budget, and a verdict on each of its rules."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from torch import nn

from cifar_fast.audit.graph import Profile, profile
from cifar_fast.audit.probe import receptive_field_probe

RULES = ("parameters", "receptive_field", "max_pooling", "depthwise_separable", "dilation",
         "global_average_pooling")
_AT_MOST = ("parameters", "max_pooling")  # the other rules ask for at least so much


@dataclass(frozen=True, kw_only=True)
class Budget:
    "What a network may have at most and must have at least."

    max_params: int = 199_999
    min_receptive_field: int = 45  # pixels: more than 44
    max_pools: int = 0  # at most
    depthwise_separable: int = 1  # at least
    dilated: int = 1  # at least
    global_average_pool: bool = True


STANDARD = Budget()


def bound(rule: str) -> str:
    "How the number that a rule requires is meant."
    return "at most" if rule in _AT_MOST else "at least"


@dataclass(frozen=True)
class Verdict:
    "One rule: what it asks, what was found."

    rule: str  # one of RULES
    required: int | bool
    found: int | bool
    ok: bool

    def __str__(self) -> str:
        if self.rule == "global_average_pooling":
            return f"{self.rule}: {'there is one' if self.found else 'there is none'}"
        return f"{self.rule}: {self.found:,}, {bound(self.rule)} {self.required:,}"


@dataclass(frozen=True, kw_only=True)
class Audit:
    "A profile, the measured receptive field and a verdict on each rule."

    name: str
    profile: Profile
    receptive_field_probe: int | None  # pixels; None where the network cannot run on larger images
    verdicts: list[Verdict]

    @property
    def rf_agrees(self) -> bool:
        return self.receptive_field_probe == self.profile.receptive_field

    def failures(self, waive: Mapping[str, str] | None = None) -> list[Verdict]:
        "The broken rules that `waive` (rule → reason) does not name; ValueError for an unknown rule."
        waive = waive or {}
        if unknown := sorted(set(waive) - set(RULES)):
            raise ValueError(f"no rule is called {', '.join(unknown)}; the rules are {', '.join(RULES)}")
        if silent := [rule for rule, reason in waive.items() if not str(reason).strip()]:
            raise ValueError(f"waiving {', '.join(silent)} needs a reason")
        return [v for v in self.verdicts if not v.ok and v.rule not in waive]

    def as_dict(self, layers: bool = False) -> dict:
        "Plain values for JSON; `layers` adds one entry per executed operation."
        values = asdict(self.profile)
        rows = values.pop("layers")
        return {
            "name": self.name,
            **values,
            "receptive_field_probe": self.receptive_field_probe,
            "rf_agrees": self.rf_agrees,
            "verdicts": [asdict(v) for v in self.verdicts],
            **({"layers": list(rows)} if layers else {}),
        }


_PROBE_BYTES = 2**31


def _probe_room(found: Profile) -> int:
    "The largest image worth probing: just larger than the rule's field, and 2 GiB of float64 activations."
    reach = found.receptive_field + 2 * max((layer.jump for layer in found.layers), default=1)
    area = found.input_size[1] * found.input_size[2] * _PROBE_BYTES / (2 * found.activation_bytes or 1)
    return max(64, min(1 << max(7, reach.bit_length()), 1 << (int(area**0.5).bit_length() - 1)))


def audit(
    model: nn.Module,
    budget: Budget = STANDARD,
    input_size: tuple[int, int, int] = (3, 32, 32),
    name: str | None = None,  # default: the architecture's registered name, else the class's
) -> Audit:
    "Profile, probe and judge. The receptive field is the smaller one where rule and probe disagree."
    found = profile(model, input_size)
    room = _probe_room(found)
    try:
        probe = receptive_field_probe(model, input_size, max_size=room)
    except (RuntimeError, ValueError, AssertionError) as error:  # networks of one fixed input size
        probe = None
        found = replace(found, notes=(*found.notes, f"the probe did not run: {error}"))
    if probe is not None and probe >= room < found.receptive_field:
        found = replace(found, notes=(*found.notes, f"the probe stops at {room} pixels: more would take too "
                                                    "much memory"))
    field = found.receptive_field if probe is None else min(found.receptive_field, probe)
    asked = {  # rule: required, found
        "parameters": (budget.max_params, found.params),
        "receptive_field": (budget.min_receptive_field, field),
        "max_pooling": (budget.max_pools, found.max_pools),
        "depthwise_separable": (budget.depthwise_separable, found.depthwise_separable),
        "dilation": (budget.dilated, found.dilated),
        "global_average_pooling": (budget.global_average_pool, found.global_average_pool),
    }
    verdicts = [
        Verdict(rule, required, has, has <= required if rule in _AT_MOST else has >= required)
        for rule, (required, has) in asked.items()
    ]
    if name is None:
        name = (getattr(model, "default_cfg", None) or {}).get("architecture") or type(model).__name__
    return Audit(name=name, profile=found, receptive_field_probe=probe, verdicts=verdicts)
