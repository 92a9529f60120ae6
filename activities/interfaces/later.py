"""Operations that are asked for when their time comes, by the control plane itself."""

from abc import ABC, abstractmethod

from pydantic import BaseModel
from temporalio import activity

from hostler.contract.servers import OperationName


class LaterCall(BaseModel):
    """An operation on a server, without options. `request_id` is another one each time that it is asked for.

    `subject` is what it is about, so that it is not done to what came after it: the migration that is to be confirmed,
    the image that keeps a shelved server's disk.
    """

    operation: OperationName
    server_id: str
    project: str
    subject: str
    request_id: str


class Asking(ABC):
    """Who asks."""

    @activity.defn(name="ask_for_operation")
    @abstractmethod
    async def ask_for_operation(self, call: LaterCall) -> None:
        """Start the operation, as a client would; returns when it is accepted.

        Raises:
            NotFound, InvalidState: it is no longer wanted. ServerBusy: not now.
        """
