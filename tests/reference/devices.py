"""Processes that see several devices, or another number of them than this one."""

from __future__ import annotations

import os


def cpu_devices(count: int) -> dict[str, str]:
    """Returns the environment of a process that has `count` CPU devices, and compiles as this one does."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
