"""The activities of the control worker: they touch the database, the scheduler and the image store."""
