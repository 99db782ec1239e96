"""The sub-commands of `fleet`, one a file."""
