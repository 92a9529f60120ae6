"""Workflows: one file an operation, named after it; each starts with the table of its steps."""
