"""What the server process of the matrix imports and works out once, so that each worker forked from it need not."""

from temporalio.worker._worker import load_default_build_id

import drivers.hypervisor.simulated
import drivers.network.simulated
import drivers.volume.simulated
import tests.faults.process
import workers.control
import workers.host

__all__ = ["drivers", "tests", "workers"]

load_default_build_id()  # a hash of all modules, which Temporal's library remembers
