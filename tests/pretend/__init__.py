"""A pretended CUDA device: the tensors are real and lie on the CPU, their storages say that they lie on a GPU.

Everything runs for real: code that depends on data, backward passes, optimizers, commands. What CUDA refuses is
refused, with the place of the call: tensors on two devices in one operation, `.numpy()` of a device tensor, a generator
of another device. Launches, waits of the host, bytes and float64 operations are counted.

An operation counts as one launch, also where CUDA takes several kernels (a sort, a sum over long rows). Not pretended:
streams, graphs, Triton, the numerics and random numbers of CUDA, and the order of events. Lists of tensors
(`torch._foreach_*`) are not checked for mixed devices, because optimizers may keep their step counts on the CPU.
"""

from pretend.counts import Counts, DeviceMixError
from pretend.device import pretend_cuda
from pretend.tags import device_of

__all__ = ["Counts", "DeviceMixError", "device_of", "pretend_cuda"]
