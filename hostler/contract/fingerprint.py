"""Tells whether two requests ask for the same."""

import hashlib

from pydantic import BaseModel


def fingerprint(request: BaseModel) -> str:
    """SHA-256 of the request's canonical JSON; fields left at their defaults do not count."""
    return hashlib.sha256(request.model_dump_json(exclude_defaults=True).encode()).hexdigest()
