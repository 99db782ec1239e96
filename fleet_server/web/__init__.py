"""The page that operators watch: rendered on the server, live by server-sent events, nothing loaded from elsewhere."""
