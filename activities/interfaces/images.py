"""Images: imported on the control worker, cached on hosts."""

from abc import ABC, abstractmethod
from datetime import datetime

from pydantic import BaseModel
from temporalio import activity

from hostler.contract.guests import ImageRef
from hostler.contract.resources import Image, ImageCreate


class ImageId(BaseModel):
    """One image."""

    image_id: str


class ForgetImage(ImageId):
    """An image whose import began at `since`: what was in the store before that is not the import's to remove.

    `made_of` is the server of which it was to be made, none where it was to be imported; another image of the UUID is
    not touched.
    """

    since: datetime | None = None
    made_of: str | None = None


class Images(ABC):
    """Owner of the image rows and of the store."""

    @activity.defn(name="accept_image")
    @abstractmethod
    def accept_image(self, call: ImageCreate) -> None:
        """Validate and insert the row as saving.

        Raises:
            InvalidRequest; Conflict: the UUID is taken; ImageRejected: it was that of another file, and is deleted.
        """

    @activity.defn(name="import_image")
    @abstractmethod
    def import_image(self, call: ImageCreate) -> ImageRef:
        """Inspect, and copy into the store. What has the UUID of a deleted image must be the same file."""

    @activity.defn(name="publish_image")
    @abstractmethod
    def publish_image(self, call: ImageRef) -> Image:
        """Make the row active: from now on the image can be used, and is not forgotten."""

    @activity.defn(name="forget_image")
    @abstractmethod
    def forget_image(self, call: ForgetImage) -> None:
        """Remove the row of an image that did not become active, and the file that its import made."""


class HostImages(ABC):
    """The host's cache."""

    @activity.defn(name="fetch_image")
    @abstractmethod
    async def fetch_image(self, call: ImageRef) -> None:
        """Have the image in the cache, verified and inspected."""

    @activity.defn(name="evict_image")
    @abstractmethod
    async def evict_image(self, call: ImageId) -> None:
        """Remove it from the cache; the caller knows that no disk stands on it."""
