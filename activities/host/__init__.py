"""The activities of a host worker: they touch one machine, through its drivers, and no database."""
