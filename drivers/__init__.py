"""Drivers: one Protocol for each neighbour, one file for each implementation."""
