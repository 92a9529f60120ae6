"""The connection to Temporal, as workers hold it."""

import asyncio
import logging
from typing import Literal

from temporalio.client import Client
from temporalio.service import RPCError

from hostler import temporal, tracing
from hostler.encryption import load_keys
from hostler.settings import Settings
from workers.metrics import make_runtime

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


async def connect(settings: Settings, identity: str, process: Literal["control", "host"]) -> Client:
    """The client, once Temporal answers; a worker may well start before it does. Metrics are served meanwhile.

    Raises:
        InvalidRequest: keys, certificates, or addresses for metrics and traces that cannot be used.
        Conflict: the metrics' port is taken.
        DecryptionFailed: the cloud encrypts with a key that this worker does not have.
    """
    if not load_keys(settings):
        logger.warning(
            "there is no encryption key: whoever can read Temporal's database or its UI reads user data and all "
            "requests (hostler key create)"
        )
    setting = f"{process}_port"
    runtime = make_runtime(settings, f"metrics.{setting}", getattr(settings.metrics, setting))
    interceptors = tracing.interceptors(settings.tracing, process)
    told = False
    while True:
        try:
            return await temporal.connect(settings, identity=identity, runtime=runtime, interceptors=interceptors)
        except (RPCError, RuntimeError) as error:
            if not told:
                logger.warning("waiting for Temporal at %s: %s", settings.temporal.address, error)
                told = True
            await asyncio.sleep(RETRY_SECONDS)
