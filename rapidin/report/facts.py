"""What a report says of the store."""

from __future__ import annotations

from rapidin.records import StoreInfo


def report_facts(info: StoreInfo) -> dict[str, str]:
    """Names and values for a report's head."""
    bits = "1 bit" if info.bits == 1 else f"{info.bits} bits"
    return {
        "Store": info.path,
        "Samples": f"{info.samples:,}",
        "Model": info.model,
        **({"Adapter": info.adapter} if info.adapter else {}),
        "RapidGrads": f"{info.projection_dim:,} numbers of {bits}, {info.projection} projection",
    }
