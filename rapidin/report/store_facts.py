"""Facts about the store in the head of a report."""

from __future__ import annotations

from pathlib import Path

from rapidin.records import StoreInfo


def report_facts(info: StoreInfo) -> dict[str, str]:
    """Make names and values for a report's head, without directories, because reports are sent to others."""
    bits = "1 bit" if info.bits == 1 else f"{info.bits} bits"
    return {
        "Store": Path(info.path).name,
        "Samples": f"{info.samples:,}",
        "Model": Path(info.model).name,
        **({"Adapter": Path(info.adapter).name} if info.adapter else {}),
        **({"Checkpoints": ", ".join(Path(one).name for one in info.checkpoints)} if info.checkpoints else {}),
        "RapidGrads": f"{info.projection_dim:,} numbers of {bits}, {info.projection} projection",
    }
