"""From the broker into the database: store each report once, then tell the device what is stored."""
