"""The connection to Temporal, as workers hold it."""

import asyncio
import logging

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError

from hostler.settings import TemporalSettings
from workers.logs import core_logging

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


async def connect(settings: TemporalSettings, identity: str) -> Client:
    """The client, once Temporal answers; a worker may well start before it does."""
    telemetry = TelemetryConfig(logging=core_logging())
    runtime = Runtime(telemetry=telemetry, worker_heartbeat_interval=settings.heartbeat_interval)
    told = False
    while True:
        try:
            return await Client.connect(
                settings.address,
                namespace=settings.namespace,
                data_converter=pydantic_data_converter,
                identity=identity,
                runtime=runtime,
            )
        except (RPCError, RuntimeError) as error:
            if not told:
                logger.warning("waiting for Temporal at %s: %s", settings.address, error)
                told = True
            await asyncio.sleep(RETRY_SECONDS)
