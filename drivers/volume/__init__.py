"""Volumes: `local` keeps files and serves them over NBD."""
