"""csi-core: write and run Container Storage Interface drivers in Python.

Plugin authors need :mod:`csi_core.hookspecs` (the contract), :mod:`csi_core.model` (its values),
:mod:`csi_core.parameters` (parameter models), :mod:`csi_core.errors` and, for their tests,
:mod:`csi_core.testing`.
"""

from importlib.metadata import version

__version__ = version("csi-core")
