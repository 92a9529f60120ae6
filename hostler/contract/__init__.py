"""The contract: every name, request, result and error that crosses a process border."""
