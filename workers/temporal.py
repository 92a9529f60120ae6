"""The connection to Temporal, as workers hold it."""

import asyncio
import logging

from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError

from hostler import temporal
from hostler.encryption import load_keys
from hostler.settings import Settings
from workers.logs import core_logging

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


async def connect(settings: Settings, identity: str) -> Client:
    """The client, once Temporal answers; a worker may well start before it does.

    Raises:
        InvalidRequest: keys or certificates that cannot be used.
        DecryptionFailed: the cloud encrypts with a key that this worker does not have.
    """
    if not load_keys(settings):
        logger.warning(
            "there is no encryption key: whoever can read Temporal's database or its UI reads user data and all "
            "requests (hostler key create)"
        )
    telemetry = TelemetryConfig(logging=core_logging())
    runtime = Runtime(telemetry=telemetry, worker_heartbeat_interval=settings.temporal.heartbeat_interval)
    told = False
    while True:
        try:
            return await temporal.connect(settings, identity=identity, runtime=runtime)
        except (RPCError, RuntimeError) as error:
            if not told:
                logger.warning("waiting for Temporal at %s: %s", settings.temporal.address, error)
                told = True
            await asyncio.sleep(RETRY_SECONDS)
