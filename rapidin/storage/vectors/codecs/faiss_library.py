"""The faiss module, which an extra installs; it is imported when it is first needed."""

from __future__ import annotations

from typing import Any

from rapidin.errors import DependencyError


def load_faiss() -> Any:
    """Import faiss.

    Raises:
        DependencyError: faiss is not installed, or it is too old.
    """
    try:
        import faiss
    except ImportError as error:
        raise DependencyError(
            "faiss is not installed: pip install 'rapidin[cpu]' (or 'rapidin[gpu]' with an NVIDIA GPU)"
        ) from error
    if not hasattr(faiss, "HadamardRotation"):
        raise DependencyError(
            f"faiss {faiss.__version__} is too old: pip install -U faiss-cpu (or faiss-gpu with an NVIDIA GPU)"
        )
    return faiss
