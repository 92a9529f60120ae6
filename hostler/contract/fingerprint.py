"""Tells whether two requests ask for the same."""

import hashlib
import json

from pydantic import BaseModel


def fingerprint(request: BaseModel) -> str:
    """SHA-256 of the request's canonical JSON: keys in order, fields left at their defaults left out."""
    content = request.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
