"""Trained tensors on disk under a content hash: locked against two processes, written atomically, rebuilt when corrupt.

Only tensors are kept (safetensors, never pickles), each file with a SHA-256 of its content. The folder is
`INVERSION_ATLAS_CACHE`, or the user's cache folder.
"""

import dataclasses
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from platformdirs import user_cache_dir
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .provenance import code_hash

log = logging.getLogger(__name__)


def folder() -> Path:
    """Where cached tensors lie."""
    return Path(os.environ.get("INVERSION_ATLAS_CACHE") or user_cache_dir("inversion-atlas"))


def content_hash(value: Any) -> str:
    """SHA-256 of nested plain data, tensors and dataclasses; equal content gives equal hashes in every process.

    Raises TypeError for what has no stable content, such as functions.
    """
    digest = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, Tensor):
            digest.update(f"T{tuple(item.shape)}{item.dtype}".encode())
            digest.update(item.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            digest.update(f"D{type(item).__name__}".encode())
            add({field.name: getattr(item, field.name) for field in dataclasses.fields(item)})
        elif isinstance(item, Mapping):
            digest.update(f"M{len(item)}".encode())
            for key in sorted(item):
                add(key)
                add(item[key])
        elif isinstance(item, (list, tuple)):
            digest.update(f"L{len(item)}".encode())
            for element in item:
                add(element)
        elif item is None or isinstance(item, (str, int, float, bool)):
            digest.update(f"{type(item).__name__}:{item!r};".encode())
        else:
            raise TypeError(f"no stable hash for a {type(item).__name__}")

    add(value)
    return digest.hexdigest()


def cached(
    name: str, module: str, key: Any, build: Callable[[], dict[str, Tensor]], device: torch.device | str
) -> dict[str, Tensor]:
    """The tensors of `build()`, from disk if they were built before from the same key by the same code.

    `name` says what it is (letters, digits, dashes), `module` is the dotted name of the module whose code builds it, `key`
    everything else that the result depends on (configuration, data). A second process waits for the first one's result.
    """
    digest = content_hash([name, code_hash(module), key])[:24]
    path = folder() / f"{name}-{digest}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(path) + ".lock"):
        tensors = _load(path, device) if path.exists() else None
        if tensors is None:
            with torch.enable_grad():  # the caller may be evaluating
                tensors = {key: value.detach().contiguous() for key, value in build().items()}
            _save(path, tensors)
            tensors = {key: value.to(device) for key, value in tensors.items()}
    return tensors


def _load(path: Path, device: torch.device | str) -> dict[str, Tensor] | None:
    """The tensors in a file, or None where the file is not what was written."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            expected = (file.metadata() or {}).get("sha256")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        log.warning("%s is damaged (%s): built again", path.name, error)
        return None
    if content_hash(tensors) != expected:
        log.warning("%s does not match its checksum: built again", path.name)
        return None
    return {name: value.to(device) for name, value in tensors.items()}


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    on_cpu = {name: value.cpu() for name, value in tensors.items()}
    write_atomically(path, save(on_cpu, metadata={"sha256": content_hash(on_cpu)}))


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a whole file or nothing: a temporary file beside it, then a rename."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def cached_module(
    name: str,
    module: str,
    key: Any,
    make: Callable[[], torch.nn.Module],
    train: Callable[[torch.nn.Module], None],
    device: torch.device | str,
) -> torch.nn.Module:
    """A trained network, in evaluation mode: `make()` gives it untrained, `train(network)` trains it in place."""
    network = make().to(device)

    def build() -> dict[str, Tensor]:
        train(network)
        return dict(network.state_dict())

    network.load_state_dict(cached(name, module, key, build, device))
    return network.eval()


def describe(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON data."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))
