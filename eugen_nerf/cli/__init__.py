"""One module a command; nothing imports from here."""
