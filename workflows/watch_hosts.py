"""Watch over the hosts: one that is silent for long has its failure dealt with, without anybody's asking.

| step | where | undo |
|---|---|---|
| look_at_hosts | control: who is not heard, and what became of those before; again and again | - |
| host-failure, for each that has been silent for too long | a workflow of its own, which goes on by itself | - |
| host-failure again, for each that is down for sure and not empty, now and then | the same | - |

It runs as long as there is a cloud, each run as the one before left off. What it remembers is how long each host has
been silent, by its own looks: see workflows/silences.py. When too many are lost at once, or one after the other,
it begins nothing, and says so: the next look has a person called, who is not waited for.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError

from activities.interfaces.host_watch import HostsLook, HostWatch, LookAtHosts
from hostler.contract.host_work import HOST_FAILURE, WATCH_HOSTS, HostFailureRequest, LeftOnHost, SilentHost, WatchState
from hostler.contract.names import CONTROL_QUEUE, host_failure_workflow_id
from workflows.silences import again, begun, due, note, tried
from workflows.steps import CONTROL_RETRY

LOOK = timedelta(seconds=60)
LOOKS = 200
"""So many make a run: a history must not grow for ever."""
COUNTS_OVER_TIME = "watch-hosts-counts-over-time"


@workflow.defn(name=WATCH_HOSTS)
class WatchHosts:
    """See the table above."""

    @workflow.init
    def __init__(self, state: WatchState) -> None:
        self.state = state

    @workflow.query(name="state")
    def known(self) -> WatchState:
        """What it knows."""
        return self.state

    @workflow.run
    async def run(self, state: WatchState) -> None:
        """Look until the settings say not to."""
        for _ in range(LOOKS):
            look = await self._look()
            if not look.interval:
                return
            await workflow.sleep(look.interval)
            if workflow.info().is_continue_as_new_suggested():
                break
        workflow.continue_as_new(self.state)

    async def _look(self) -> HostsLook:
        silent = {host.id for host in self.state.silent if host.begun is not None}
        dealt_with = sorted(silent | {host.id for host in self.state.failed})
        look = await workflow.execute_activity_method(
            HostWatch.look_at_hosts,
            LookAtHosts(begun=dealt_with, alarms=self.state.calls),
            start_to_close_timeout=LOOK,
            retry_policy=CONTROL_RETRY,
        )
        if not workflow.patched(COUNTS_OVER_TIME):
            look.window = timedelta(0)
        alarm, stuck = self.state.alarm, {host.id for host in self.state.silent if host.stuck}
        note(self.state, look, workflow.now())
        if self.state.alarm and self.state.alarm != alarm:
            workflow.logger.error("%s", self.state.alarm)
        for host in self.state.silent:
            if host.stuck and host.id not in stuck:
                workflow.logger.error("host %s is silent, and its servers are not evacuated: %s", host.name, host.stuck)
        for host in due(self.state, look, workflow.now()):
            workflow.logger.warning("host %s has been silent since %s", host.name, f"{host.since:%Y-%m-%d %H:%M:%S}")
            begun(self.state, host, workflow.now())
            await self._begin(host, f"host {host.name} is silent")
        for left in again(self.state, look, workflow.now()):
            tried(left, workflow.now())
            await self._begin(left, f"host {left.name} is down, and {left.wanted} servers are left there")
        self._tell()
        return look

    async def _begin(self, host: SilentHost | LeftOnHost, why: str) -> None:
        try:
            await workflow.start_child_workflow(
                HOST_FAILURE,
                HostFailureRequest(host_id=host.id, request_id=str(workflow.uuid4()), automatic=True),
                id=host_failure_workflow_id(host.id),
                task_queue=CONTROL_QUEUE,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                static_summary=why,
            )
        except WorkflowAlreadyStartedError:  # an operator was faster
            workflow.logger.info("the failure of host %s is dealt with already", host.name)

    def _tell(self) -> None:
        state = self.state
        lines = [f"looked at {state.looked_at:%Y-%m-%d %H:%M:%S} UTC" if state.looked_at else ""]
        if state.alarm:
            lines += ["", f"**{state.alarm}**"]
        for host in state.silent:
            what = f"stuck: {host.stuck}" if host.stuck else "its failure is dealt with" if host.begun else "waits"
            lines.append(f"- {host.name}: silent since {host.since:%H:%M:%S}, {host.servers} servers, {what}")
        for left in state.left:
            lines.append(f"- {left.name}: down, {left.wanted} servers left there, tried again {left.times} times")
        workflow.set_current_details("\n".join(lines))
