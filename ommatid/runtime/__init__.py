"""Run a compiled model: one file a runtime, imported only when it is chosen."""
