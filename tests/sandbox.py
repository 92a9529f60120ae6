"""The sandbox in which tests run workflows: it refuses what is not deterministic. In production they run without it."""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

# What workflows import is passed through, or each run would import all of it afresh.
PASSED_THROUGH = ("hostler", "activities", "pydantic", "annotated_types", "typing_inspection")


def workflow_runner() -> SandboxedWorkflowRunner:
    """The runner."""
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH))
