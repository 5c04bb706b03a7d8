"""A budget, and a verdict on each of its rules."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from torch import nn

from cifar_fast.audit.graph import Profile, profile
from cifar_fast.audit.probe import REFUSALS, measured_field
from cifar_fast.utils.errors import CifarFastError

RULES = ("parameters", "receptive_field", "max_pooling", "depthwise_separable", "dilation",
         "global_average_pooling", "multiply_adds", "flash", "ram")
_BYTES = ("flash", "ram")
_AT_MOST = ("parameters", "max_pooling", "multiply_adds", *_BYTES)  # the other rules require at least so much


class AuditError(CifarFastError):
    "A `waive` that names no rule or gives no reason, or images that the model does not take; the message names which."


@dataclass(frozen=True, kw_only=True)
class Budget:
    "What a model may have at most and must have at least."

    max_params: int = 199_999
    min_receptive_field: int = 45  # pixels: more than 44
    max_pools: int = 0  # at most
    depthwise_separable: int = 1  # at least
    dilated: int = 1  # at least
    global_average_pool: bool = True
    # No rule where they are None. One KB is 1,024 bytes; see `Profile` for what is counted.
    max_macs: float | None = None  # multiply-adds of one image
    max_flash_kb: float | None = None
    max_ram_kb: float | None = None


STANDARD = Budget()


def bound(rule: str) -> str:
    "'at most' or 'at least': which way the rule limits its value."
    return "at most" if rule in _AT_MOST else "at least"


def amount(rule: str, value: int | bool) -> str:
    "A value of a rule as text: bytes in KB, yes or no where it is no number."
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value / 1024:,.1f} KB" if rule in _BYTES else f"{value:,}"


LIMITS = dict(zip(RULES, ("max_params", "min_receptive_field", "max_pools", "depthwise_separable", "dilated",
                          "global_average_pool", "max_macs", "max_flash_kb", "max_ram_kb"), strict=True))
"The field of a Budget that a rule compares with."


@dataclass(frozen=True)
class Verdict:
    "One rule: what it requires, and what the model has."

    rule: str  # one of RULES
    required: int | bool  # bytes for flash and ram
    found: int | bool
    ok: bool

    @property
    def allowing(self) -> str:
        "The change of a recipe's budget that allows what was found, as it is typed."
        found = -(-self.found // 1024) if self.rule in _BYTES else self.found
        return f"budget.{LIMITS[self.rule]}={str(found).lower() if isinstance(found, bool) else f'{found:_}'}"

    def __str__(self) -> str:
        if self.rule == "global_average_pooling":
            return f"{self.rule}: {'there is one' if self.found else 'there is none'}"
        return (f"{self.rule}: {amount(self.rule, self.found)}, {bound(self.rule)} "
                f"{amount(self.rule, self.required)}")


@dataclass(frozen=True, kw_only=True)
class Audit:
    "A profile, the measured receptive field, and a verdict on each rule."

    name: str
    profile: Profile
    receptive_field_probe: int | None  # pixels; None where the probe could not run
    verdicts: list[Verdict]
    probe_cut_off: bool = False  # the field fills the largest possible image: at least `receptive_field_probe`

    @property
    def rf_agrees(self) -> bool:
        "Whether rule and probe say the same; of a probe that was cut off, whether the rule says no less."
        probe, rule = self.receptive_field_probe, self.profile.receptive_field
        return probe is not None and (probe <= rule if self.probe_cut_off else probe == rule)

    def failures(self, waive: Mapping[str, str] | None = None) -> list[Verdict]:
        "The broken rules that `waive` (rule → reason) does not name. AuditError for unknown rules and empty reasons."
        waive = waive or {}
        if unknown := sorted(set(waive) - set(RULES)):
            raise AuditError(f"waive names {', '.join(unknown)}; the rules are {', '.join(RULES)}")
        if unexplained := [rule for rule, reason in waive.items() if not str(reason).strip()]:
            raise AuditError(f"waive gives no reason for {', '.join(unexplained)}; write one as the value")
        return [v for v in self.verdicts if not v.ok and v.rule not in waive]

    def as_dict(self, layers: bool = False) -> dict:
        "Values for JSON; `layers=True` adds an entry for each executed operation."
        values = asdict(self.profile)
        rows = values.pop("layers")
        return {
            "name": self.name,
            **values,
            "receptive_field_probe": self.receptive_field_probe,
            "probe_cut_off": self.probe_cut_off,
            "rf_agrees": self.rf_agrees,
            "verdicts": [asdict(v) for v in self.verdicts],
            **({"layers": list(rows)} if layers else {}),
        }


def whole(limit: float | None, unit: int = 1) -> int | None:
    return None if limit is None else int(limit * unit)


_PROBE_BYTES = 2**31  # of activations in float64


def _probe_size(profile: Profile) -> int:
    "Pixels of the largest image to probe: just above the receptive field by the rule, within `_PROBE_BYTES`."
    extent = profile.receptive_field + 2 * max((layer.total_stride for layer in profile.layers), default=1)
    area = profile.input_size[1] * profile.input_size[2] * _PROBE_BYTES / (2 * profile.activation_bytes or 1)
    return max(64, min(1 << max(7, extent.bit_length()), 1 << (int(area**0.5).bit_length() - 1)))


def audit(
    model: nn.Module,
    budget: Budget = STANDARD,
    input_size: tuple[int, int, int] = (3, 32, 32),
    name: str | None = None,  # default: the model's registered name, else its class's
) -> Audit:
    """Profile, probe and judge a model. Where rule and probe disagree, the smaller receptive field counts.

    A probe that the edge of the largest possible image cuts off is a lower bound: then the rule counts, and a note says
    so. Raises AuditError where it does not take images of `input_size`.
    """
    if name is None:
        name = (getattr(model, "default_cfg", None) or {}).get("architecture") or type(model).__name__
    try:
        measured = profile(model, input_size)
    except REFUSALS as error:
        height, width = input_size[1:]
        raise AuditError(f"{name} does not take images of {height}×{width}: {' '.join(str(error).split())[:200]}; "
                         f"choose another size") from error
    largest = _probe_size(measured)
    field, probe, notes = measured.receptive_field, None, ()
    try:
        probe = measured_field(model, input_size, largest)
    except REFUSALS as error:
        notes = (f"the probe did not run: {error}",)
    if probe and not probe.cut_off:
        field = min(field, probe.pixels)
    elif probe and probe.pixels < field:
        why = "the model takes no larger image" if probe.image < largest else "a larger one would need too much memory"
        notes = (f"the probe stops at {probe.image} pixels, so that the rule alone counts: {why}",)
    measured = replace(measured, notes=(*measured.notes, *notes))
    rules = {  # rule: required, found
        "parameters": (budget.max_params, measured.params),
        "receptive_field": (budget.min_receptive_field, field),
        "max_pooling": (budget.max_pools, measured.max_pools),
        "depthwise_separable": (budget.depthwise_separable, measured.depthwise_separable),
        "dilation": (budget.dilated, measured.dilated),
        "global_average_pooling": (budget.global_average_pool, measured.global_average_pool),
        "multiply_adds": (whole(budget.max_macs), measured.macs),
        "flash": (whole(budget.max_flash_kb, 1024), measured.flash_bytes),
        "ram": (whole(budget.max_ram_kb, 1024), measured.ram_bytes),
    }
    verdicts = [
        Verdict(rule, required, has, has <= required if rule in _AT_MOST else has >= required)
        for rule, (required, has) in rules.items() if required is not None
    ]
    return Audit(name=name, profile=measured, receptive_field_probe=probe and probe.pixels, verdicts=verdicts,
                 probe_cut_off=bool(probe and probe.cut_off))
