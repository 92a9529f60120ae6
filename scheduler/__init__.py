"""Chooses the host of a server: filters, weighers, and the reservation that makes the choice hold."""

from scheduler.request import SchedulingRequest
from scheduler.reservation import held_host, release, reserve
from scheduler.scheduler import Placement, Scheduler

__all__ = ["Placement", "Scheduler", "SchedulingRequest", "held_host", "release", "reserve"]
