"""The HTTP API: thin routes over the parts of fleet_server.services."""
