"""The calls that need no workflow: reads, and changes of the catalogue; see hostler.contract.calls."""
