"""The steps from one shape of the tables to the next; Database.migrate runs them."""
