"""What crosses a process, a disk or a network: bundles, trust, topics and messages."""
