"""Wiring only: processes that read the settings, build the drivers, register what they serve, run, and drain."""
