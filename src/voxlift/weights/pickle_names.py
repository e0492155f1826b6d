"""What the pickles of `torch.save` may name: kinds of numbers and of blocks of them."""

import torch

from voxlift.weights.plain import HARMLESS, PlainType

STORAGE_BYTES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexDoubleStorage": 16,
    "ComplexFloatStorage": 8,
    "UntypedStorage": 1,
}

STORAGES = {
    f"{module}.{name}": num_bytes
    for name, num_bytes in STORAGE_BYTES.items()
    for module in ("torch", "torch.cuda", "torch.storage")
}
"""Kinds of blocks of numbers, and the bytes of one number."""

DTYPES = {
    str(dtype): dtype.itemsize
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and not str(dtype).startswith("torch.q")
}
"""Kinds of numbers, and the bytes of one."""

MOVED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules by the names that they had in Python 2."""

KNOWN = {
    *STORAGES,
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    *DTYPES,
    *(name for stand_in, name in HARMLESS if stand_in is PlainType),
}
"""What a pickle may name without calling it."""

UNREADABLE = {
    "torch._utils._rebuild_qtensor": "quantized",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta",
    "torch._utils._rebuild_wrapper_subclass": "wrapped",
    "torch._utils._rebuild_device_tensor_from_numpy": "foreign-device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "foreign-device",
    **{
        f"torch.{kind}Storage": "quantized"
        for kind in ("QInt8", "QInt32", "QUInt8", "QUInt4x2", "QUInt2x4")
    },
}
"""Kinds of tensors that no code could make readable."""
