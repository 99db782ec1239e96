"""Trust: what a device believes, and why.

Two roots are pinned on the device. The release side signs what exists; the director signs what one device shall run;
the device installs only what both name. docs/threat-model.md says what each key can and cannot do.
"""
