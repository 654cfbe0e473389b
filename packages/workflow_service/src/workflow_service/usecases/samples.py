"""The contracts that ship with the service."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from workflow_service.domain.document import MEDIA_TYPES


@dataclass(frozen=True, slots=True)
class Sample:
    """A file that ships with the service."""

    name: str
    media_type: str
    size: int  # bytes


async def list_samples(folder: Path) -> list[Sample]:
    """Return the samples in ``folder``, by name; none when there is no such folder."""
    return await asyncio.to_thread(_list, folder)


async def read_sample(folder: Path, name: str) -> bytes | None:
    """Return a sample's bytes; None when no sample has this name. A path is no name."""
    samples = await list_samples(folder)
    if all(sample.name != name for sample in samples):
        return None
    return await asyncio.to_thread((folder / name).read_bytes)


def _list(folder: Path) -> list[Sample]:
    if not folder.is_dir():
        return []
    return [
        Sample(path.name, MEDIA_TYPES[path.suffix], path.stat().st_size)
        for path in sorted(folder.iterdir())
        if path.suffix in MEDIA_TYPES and path.is_file()
    ]
