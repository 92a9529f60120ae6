"""The audit's control side: what is compared, what is suspected, and what heals it."""
