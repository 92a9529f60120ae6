"""What workflows know of activities: names, arguments and results, without what implements them.

Every step may run twice; every undo also works when its step ran half-way or never. Arguments are one model each,
with defaults, so that old and new workers understand each other.
"""
