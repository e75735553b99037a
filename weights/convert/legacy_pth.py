"""Read a state dict that torch.save wrote before its zip format (torch 1.5 and older). Needs numpy.

Such a file is a sequence of pickles, followed by the bytes of the storages. The unpickler here
accepts four names and rejects all others, so a hostile file can only raise an error.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGE_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "LongStorage": np.dtype("<i8"),
}


class _View(NamedTuple):
    """A pickled tensor: a view of a storage. Offset and strides count elements."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, dtypes: dict[str, np.dtype]) -> None:
        super().__init__(file)
        self.dtypes = dtypes

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _View(
                storage, offset, tuple(shape), tuple(strides)
            )
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"`{module}.{name}` has no place in a state dict")

    def persistent_load(self, pid):
        _kind, dtype, key, _device, _length = pid[:5]
        self.dtypes[key] = dtype
        return key


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of the state dict in `path`, by name.

    Raises ValueError if the file has another format, and pickle.UnpicklingError if it contains any
    other class.
    """
    with open(path, "rb") as file:
        dtypes = {}
        if _Unpickler(file, dtypes).load() != MAGIC or _Unpickler(file, dtypes).load() != PROTOCOL:
            raise ValueError(f"`{path}`: expected a state dict in torch's legacy format")
        _Unpickler(
            file, dtypes
        ).load()  # byte order and integer sizes of the writer: little-endian in every such file
        views = _Unpickler(file, dtypes).load()
        storages = {}
        for key in _Unpickler(file, dtypes).load():
            length = int.from_bytes(file.read(8), "little")
            storages[key] = np.frombuffer(file.read(length * dtypes[key].itemsize), dtypes[key])
    return {name: _materialise(storages[view.storage], view) for name, view in views.items()}


def _materialise(storage: np.ndarray, view: _View) -> np.ndarray:
    # Unlike as_strided, this constructor raises if the view exceeds the storage.
    size = storage.itemsize
    strides = [stride * size for stride in view.strides]
    return np.ndarray(view.shape, storage.dtype, storage, view.offset * size, strides)
