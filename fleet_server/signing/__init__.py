"""Sign what devices believe: the release repository and the director's documents.

All signing is python-tuf's metadata and securesystemslib's Ed25519; nothing here touches a network or a database.
Root and targets keys of the release side stay with whoever pushes; the server holds the other keys only.
"""
