"""Images: the store that keeps them, each host's cache, and the inspection of what tenants upload."""
