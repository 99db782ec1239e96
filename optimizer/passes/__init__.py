"""The steps of a build; each takes an artifact and returns one."""
