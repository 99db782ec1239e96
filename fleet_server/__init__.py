"""The fleet server: it enrols devices, keeps releases, rolls them out, and stores what devices report."""
