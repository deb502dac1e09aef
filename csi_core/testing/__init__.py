"""The conformance kit: what every backend must do, as tests to subclass.

* :mod:`csi_core.testing.contract`: :class:`~csi_core.testing.contract.BackendContract`, the tests of the hooks.
* :mod:`csi_core.testing.driver`: :class:`~csi_core.testing.driver.DriverContract`, the tests of the calls over gRPC.
* :mod:`csi_core.testing.stateful`: random sequences of calls, compared with a model.
* :mod:`csi_core.testing.harness`: ``csi-core serve`` as a process that can be killed and restarted.

It needs the extra ``csi-core[testing]``. Nothing is imported here, so that each part can be used without the others.
"""
